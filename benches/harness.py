"""Processes of a benchmark: started, waited for, measured and ended."""

import glob
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = HERE.parent / "tests" / "sipp"
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A measurement that could not be made."""


class Processes:
    """What one measurement started. Leaving the `with` ends it, and nothing else."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            stop(process)

    def start(self, name, command, **options):
        """Starts a command; what it prints goes to NAME.log in the directory."""
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                **options,
            )
        process.name = name
        self.started.append(process)
        return process

    def wait_until(self, what, true, seconds=20, every=0.02):
        """Waits until `true()`, which is asked so often; fails if a process that was started has ended, or time is up."""
        end = time.monotonic() + seconds
        while not true():
            for process in self.started:
                if process.poll() not in (None, 0):
                    raise Failed(f"{process.name} ended with {process.returncode}:\n{self.log(process.name)}")
            if time.monotonic() > end:
                raise Failed(f"{what}: not within {seconds} s")
            time.sleep(every)

    def log(self, name, lines=15):
        """The end of what a process printed."""
        text = (self.directory / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def stop(process):
    """Ends a process, politely first."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(end)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue


def family(pid):
    """A process and all that descend from it."""
    pids = [pid]
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(file, encoding="ascii") as children:
            for child in children.read().split():
                pids += family(int(child))
    return pids


def cpu_seconds(pids):
    """User and system time that processes have used."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def bound(port, address="127.0.0.1", transport="udp"):
    """Whether somebody has a port of an address."""
    place = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
    with open(f"/proc/net/{transport}", encoding="ascii") as table:
        return any(line.split()[1] == place for line in table.readlines()[1:])


def records(directory):
    """The CDRs of an engine."""
    file = directory / "data" / "cdr.jsonl"
    # The last line may be half written.
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def free_port():
    """A TCP port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers_http(url):
    """Whether a URL answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def answers_sip(port):
    """Whether a SIP server answers at all. Max-Forwards 0 keeps a proxy from asking others (RFC 3261 16.3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.3)
        probe.connect(("127.0.0.1", port))
        local = "127.0.0.1:%d" % probe.getsockname()[1]
        request = (
            f"OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {local};branch=z9hG4bK{time.monotonic_ns()}\r\n"
            f"Max-Forwards: 0\r\nFrom: <sip:probe@{local}>;tag=1\r\nTo: <sip:127.0.0.1:{port}>\r\n"
            f"Call-ID: {time.monotonic_ns()}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
        try:
            probe.send(request.encode())
            return probe.recv(65535).startswith(b"SIP/2.0 ")
        except OSError:
            return False


def resident_bytes(pids):
    """Memory of processes that is in RAM."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            total += int(statm.read().split()[1])
    return total * os.sysconf("SC_PAGESIZE")


def metrics(engine):
    """Every metric of the engine by its name, as the sum over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.http}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    sums = {}
    for line in lines:
        if line and not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            name = series.split("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def metric(engine, name):
    """The sum of a metric of the engine over its labels."""
    return metrics(engine).get(name, 0.0)


def start_engine(processes, binaries, media, more="", node="", patience=20, variables=None):
    """Starts the engine with a trunk for SIPp's calls and a trunk for where they go, both with `media`, `more` settings,
    `node` among those of the node, and environment variables. Its `ready_s` says how long that took."""
    http = free_port()
    settings = processes.directory / "tandem.toml"
    settings.write_text(
        f"""
[node]
name = "bench"
realm = "127.0.0.1"
data_dir = "{processes.directory / "data"}"
{node}

[http]
address = "127.0.0.1:{http}"

[[listen]]
name = "sip"
transport = "udp"
address = "127.0.0.1:5080"

[media]
addresses = ["127.0.0.1"]
ports = [6000, 24999]

[[trunk]]
name = "in"
proxies = ["127.0.0.1:25060"]
accept_from = ["127.0.0.1/32:25060", "127.0.0.1/32:25061"]
media = "{media}"

[[trunk]]
name = "out"
proxies = ["127.0.0.1:25080"]
media = "{media}"

[[dial_plan.pattern]]
pattern = "100"
target = "trunk:out"
{more}"""
    )
    began = time.monotonic()
    environment = os.environ | (variables or {})
    engine = processes.start("tandem", [binaries / "tandem", "run", "--config", settings], env=environment)
    engine.http = http
    processes.wait_until("the engine is ready", lambda: answers_http(f"http://127.0.0.1:{http}/readyz"), patience, 0.002)
    engine.ready_s = time.monotonic() - began
    return engine
