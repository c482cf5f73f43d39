"""CPU per completed call: INVITE, 180, 200, ACK, BYE, 200 at a fixed rate through a server, without media."""

import csv
import glob
import os
import subprocess

from harness import HERE, SCENARIOS, Failed, Processes, answers_sip, bound, cpu_seconds, family, start_engine

SIPP = ["sipp", "-i", "127.0.0.1", "-nostdin", "-buff_size", "4000000"]


def start_kamailio(processes):
    """Kamailio with its fast allocator: Debian's default is three to four times slower."""
    modules = glob.glob("/usr/lib/*/kamailio/modules")
    if not modules:
        raise Failed("Kamailio's modules are not in /usr/lib/*/kamailio/modules")
    directory = processes.directory
    kamailio = processes.start(
        "kamailio",
        ["kamailio", "-DD", "-E", "-m", "2000", "-M", "32", "-x", "fm", "-X", "fm", "-L", modules[0]]
        + ["-f", HERE / "kamailio.cfg", "-P", directory / "kamailio.pid", "-Y", directory],
    )
    processes.wait_until("Kamailio answers", lambda: answers_sip(5070))
    return kamailio


def start_callee(processes):
    """The far end of all calls."""
    command = SIPP + ["-sf", SCENARIOS / "callee.xml", "-p", "25080", "-mp", "46000"]
    callee = processes.start("callee", command)
    processes.wait_until("SIPp listens", lambda: bound(25080))
    return callee


def place(processes, name, port, rate, seconds):
    """Places calls through a server; returns SIPp's last line of figures."""
    figures = processes.directory / f"{name}.csv"
    calls = rate * seconds
    command = SIPP + ["-sf", SCENARIOS / "caller.xml", f"127.0.0.1:{port}", "-p", "25060", "-mp", "36000", "-s", "100"]
    command += ["-r", rate, "-m", calls, "-l", 20000, "-d", 0, "-recv_timeout", 20000]
    command += ["-trace_stat", "-stf", figures, "-fd", 1, "-timeout", f"{seconds * 2 + 30}s", "-timeout_error"]
    caller = processes.start(name, command)
    try:
        caller.wait(timeout=seconds * 2 + 60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{name}: SIPp does not end") from None
    if not figures.exists():
        raise Failed(f"{name}: SIPp ended with {caller.returncode}:\n{processes.log(name)}")
    with open(figures, encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    # A call that was never placed has failed, too.
    answered = int(last["SuccessfulCall(C)"])
    return {"calls": answered, "failed": calls - answered, "retransmissions": int(last["Retransmissions(C)"])}


def measure(directory, start, port, rate, seconds):
    """Starts a server by `start`, warms it up, and measures."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        server = start(processes)
        start_callee(processes)
        place(processes, "warm-up", port, rate, 2)
        pids = family(server.pid)
        before = cpu_seconds(pids)
        figures = place(processes, "caller", port, rate, seconds)
        used = cpu_seconds(pids) - before
    if not figures["calls"]:
        raise Failed(f"no call succeeded:\n{processes.log('caller')}")
    return figures | {"us_per_call": round(1e6 * used / figures["calls"], 1)}


def compare(directory, binaries, quick):
    """The engine beside Kamailio."""
    rate, seconds = 2000, 5 if quick else 30
    engine = lambda processes: start_engine(processes, binaries, "bypass")
    peer = measure(directory / "calls-kamailio", start_kamailio, 5070, rate, seconds)
    own = measure(directory / "calls-tandem", engine, 5080, rate, seconds)
    return {
        "what": f"CPU per call, bypass, {rate} calls/s for {seconds} s",
        "unit": "us",
        "peer_name": "Kamailio (fm)",
        "tandem": own,
        "peer": peer,
        "figure": "us_per_call",
        "reach": 2.0,
    }
