"""CPU per completed call: INVITE, 180, 200, ACK, BYE, 200 at a fixed rate through a server, without media."""

import csv
import glob
import os
import subprocess
import sys
import time

from harness import HERE, SCENARIOS, Failed, Processes, answers_sip, bound, cpu_seconds, family, start_engine
from relay import start_rtpengine

# From an easy rate to one that fills the machine.
RATES = [500, 2000, 4000, 8000]
# Rates among which the highest that is held is looked for.
STEPS = range(500, 12_001, 500)
# A call in a thousand may fail.
HELD = 0.001
SIPP = ["sipp", "-i", "127.0.0.1", "-nostdin", "-buff_size", "4000000"]


def start_kamailio(processes, *options):
    """Kamailio with its fast allocator: Debian's default is three to four times slower."""
    modules = glob.glob("/usr/lib/*/kamailio/modules")
    if not modules:
        raise Failed("Kamailio's modules are not in /usr/lib/*/kamailio/modules")
    directory = processes.directory
    kamailio = processes.start(
        "kamailio",
        ["kamailio", "-DD", "-E", "-m", "2000", "-M", "32", "-x", "fm", "-X", "fm", "-L", modules[0]]
        + ["-f", HERE / "kamailio.cfg", "-P", directory / "kamailio.pid", "-Y", directory, *options],
    )
    processes.wait_until("Kamailio answers", lambda: answers_sip(5070))
    return kamailio


def start_callee(processes):
    """The far end of all calls."""
    command = SIPP + ["-sf", SCENARIOS / "callee.xml", "-p", "25080", "-mp", "46000"]
    callee = processes.start("callee", command)
    processes.wait_until("SIPp listens", lambda: bound(25080))
    return callee


def figures_of(processes, name, command, rate, seconds):
    """Runs SIPp with a rate for so long; its last line of figures."""
    figures, calls = processes.directory / f"{name}.csv", rate * seconds
    command = command + ["-r", rate, "-m", calls, "-l", 20000, "-recv_timeout", 20000]
    command += ["-trace_stat", "-stf", figures, "-fd", 1, "-timeout", f"{seconds * 2 + 30}s", "-timeout_error"]
    sipp, began = processes.start(name, command), time.monotonic()
    try:
        sipp.wait(timeout=seconds * 2 + 60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{name}: SIPp does not end") from None
    took = time.monotonic() - began
    if not figures.exists():
        raise Failed(f"{name}: SIPp ended with {sipp.returncode}:\n{processes.log(name)}")
    with open(figures, encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    # A call that was never placed has failed, too.
    answered, again = int(last["SuccessfulCall(C)"]), int(last["Retransmissions(C)"])
    return {"calls": answered, "failed": calls - answered, "retransmissions": again, "seconds": round(took, 2), "pid": sipp.pid}


def place(processes, name, port, rate, seconds, *options):
    """Places calls through a server."""
    command = SIPP + ["-sf", SCENARIOS / "caller.xml", f"127.0.0.1:{port}", "-p", "25060", "-mp", "36000", "-s", "100"]
    return figures_of(processes, name, command + ["-d", 0, *options], rate, seconds)


def measure_on(processes, name, port, rate, seconds, servers):
    """Places calls through servers that run; CPU of all of them per call."""
    pids = [pid for server in servers for pid in family(server.pid)]
    before = cpu_seconds(pids)
    figures = place(processes, name, port, rate, seconds)
    used = cpu_seconds(pids) - before
    if not figures["calls"]:
        raise Failed(f"no call succeeded:\n{processes.log(name)}")
    return figures | {"us_per_call": round(1e6 * used / figures["calls"], 1)}


def measure(directory, start, port, rate, seconds):
    """Starts servers by `start`, warms them up, and measures; the CPU is that of all of them."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        servers = start(processes)
        start_callee(processes)
        place(processes, "warm-up", port, rate, 2)
        return measure_on(processes, "caller", port, rate, seconds, servers)


def bypass(directory, binaries, rate, seconds, reach):
    """The engine beside Kamailio at one rate, without media."""
    peer = measure(directory / f"kamailio-{rate}", lambda p: [start_kamailio(p)], 5070, rate, seconds)
    own = measure(directory / f"tandem-{rate}", lambda p: [start_engine(p, binaries, "bypass")], 5080, rate, seconds)
    return {
        "what": f"CPU per call, bypass, {rate} calls/s for {seconds} s",
        "unit": "us",
        "peer_name": "Kamailio (fm)",
        "tandem": own,
        "peer": peer,
        "figure": "us_per_call",
        "reach": reach,
        "rate": rate,
    }


def compare(directory, binaries, quick):
    """CPU per call at 2,000 calls/s."""
    return [bypass(directory / "calls", binaries, 2000, 5 if quick else 30, 1.0)]


def rates(directory, binaries, quick):
    """CPU per call, and what is lost, from an easy rate to one that fills the machine."""
    seconds = 5 if quick else 15
    return [bypass(directory / "rates", binaries, rate, seconds, None) for rate in RATES]


def highest(directory, start, port, seconds):
    """The highest rate that a server holds: of the calls placed in that time fewer than one in a thousand fails."""
    os.makedirs(directory)
    low, high = 0, len(STEPS)
    while low < high:
        middle = (low + high) // 2
        rate, path = STEPS[middle], directory / f"{STEPS[middle]}"
        try:
            figures = measure(path, start, port, rate, seconds)
        except Failed as fault:
            print(f"{rate} calls/s: {fault}", file=sys.stderr, flush=True)
            figures = {"calls": 0, "failed": 1, "seconds": 0.0}
        # SIPp, which has the same cores, may come to fewer calls a second than it is asked for.
        if figures["failed"] < HELD * figures["calls"] and figures["seconds"] < 1.1 * seconds:
            low = middle + 1
        else:
            high = middle
    return {"calls_per_s": STEPS[low - 1] if low else 0}


def held(directory, binaries, quick):
    """Calls a second with fewer than 0.1 % failed."""
    seconds = 5 if quick else 15
    peer = highest(directory / "held-kamailio", lambda p: [start_kamailio(p)], 5070, seconds)
    own = highest(directory / "held-tandem", lambda p: [start_engine(p, binaries, "bypass")], 5080, seconds)
    return [
        {
            "what": f"calls/s held for {seconds} s, bypass, to the next {STEPS[1] - STEPS[0]}",
            "unit": "calls/s",
            "peer_name": "Kamailio (fm)",
            "tandem": own,
            "peer": peer,
            "figure": "calls_per_s",
            "reach": 7000,
        }
    ]


def anchored(directory, binaries, quick):
    """Calls whose media is anchored, without a packet: the engine beside Kamailio with rtpengine."""
    rate, seconds = 1000, 5 if quick else 15

    def kamailio(processes):
        return [start_rtpengine(processes), start_kamailio(processes, "-A", "ANCHORED")]

    peer = measure(directory / "anchored-kamailio", kamailio, 5070, rate, seconds)
    own = measure(directory / "anchored-tandem", lambda p: [start_engine(p, binaries, "anchored")], 5080, rate, seconds)
    return [
        {
            "what": f"CPU per call, anchored, {rate} calls/s for {seconds} s",
            "unit": "us",
            "peer_name": "Kamailio (fm) and rtpengine",
            "tandem": own,
            "peer": peer,
            "figure": "us_per_call",
            "reach": 1.3,
        }
    ]
