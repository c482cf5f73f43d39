"""Three times as many calls as can be done: how many are done, in how much memory, and how soon it is over."""

import csv
import os
import threading

from calls import highest, place, start_callee
from harness import Failed, Processes, metric, start_engine

# New calls for each that can be done.
TIMES = 3
# After so many seconds at half of what can be done everything is taken again.
RECOVERY = 5
# Who else computes on the engine's core: so it is the engine that is overloaded, and not SIPp, which has one core for both ends.
NEIGHBOURS = 2


def overload(directory, binaries, quick):
    """The engine has a third of a core and SIPp, at both ends, another core: what SIPp needs is not the engine's."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failed("needs two cores")
    try:
        return [measure(directory, binaries, 10 if quick else 60, cores)]
    finally:
        os.sched_setaffinity(0, cores)


def measure(directory, binaries, seconds, cores):
    def start(processes):
        os.sched_setaffinity(0, cores[:1])
        try:
            engine = start_engine(processes, binaries, "bypass", node="shards = 1")
            for number in range(NEIGHBOURS):
                processes.start(f"neighbour-{number}", ["sh", "-c", "while :; do :; done"])
        finally:
            # What is started from now on is SIPp's.
            os.sched_setaffinity(0, cores[1:])
        return [engine]

    held = highest(directory / "overload-held", start, 5080, 5 if seconds < 60 else 15)["calls_per_s"]
    if not held:
        raise Failed("no rate is held")
    os.makedirs(directory / "overload")
    with Processes(directory / "overload") as processes:
        (engine,) = start(processes)
        start_callee(processes)
        place(processes, "warm-up", 5080, held, 5)
        before = peak_bytes(engine.pid)
        over, figures, calls = {}, directory / "overload" / "over.csv", TIMES * held * seconds
        flood = threading.Thread(target=lambda: over.update(place(processes, "over", 5080, TIMES * held, seconds)))
        flood.start()
        processes.wait_until("all is placed", lambda: figures.exists() and placed(figures) >= calls, 3 * seconds + 30)
        # SIPp still waits for answers to the last of it.
        elsewhere = ["-p", 25061, "-mp", 38000]
        place(processes, "recovery", 5080, held // 2, RECOVERY, *elsewhere)
        after = place(processes, "after", 5080, held // 2, 10, *elsewhere)
        flood.join()
        memory, refused = peak_bytes(engine.pid), metric(engine, "tandem_invites_refused_total")
    done, offered = while_offered(figures, calls)
    if offered < (TIMES - 0.5) * held:
        raise Failed(f"SIPp has placed {offered:.0f} calls/s and not {TIMES * held}")
    what = (
        f"calls/s done of {offered:.0f} offered beside those held ({refused:.0f} refused; {RECOVERY} s later {after['failed']} of "
        f"{after['calls'] + after['failed']} fail; memory {before >> 20} -> {memory >> 20} MB)"
    )
    return {
        "what": what,
        "unit": "calls/s",
        "peer_name": "held",
        "tandem": over | {"done_per_s": round(done), "after": after, "peak_bytes": [before, memory]},
        "peer": {"done_per_s": held},
        "figure": "done_per_s",
        "reach": 0.9,
    }


def placed(figures):
    """Calls that SIPp has begun at the end of its last second."""
    with open(figures, encoding="utf-8", newline="") as file:
        counts = [int(row["TotalCallCreated"] or 0) for row in csv.DictReader(file, delimiter=";")]
    return counts[-1] if counts else 0


def while_offered(figures, calls):
    """Calls done and calls begun, both a second, from SIPp's first second until its last call has begun."""
    with open(figures, encoding="utf-8", newline="") as file:
        rows = [(float(row["CurrentTime"].split("\t")[-1]), row) for row in csv.DictReader(file, delimiter=";")]
    began, _ = rows[0]
    ended, last = next(((at, row) for at, row in rows if int(row["TotalCallCreated"]) >= calls), rows[-1])
    return tuple(int(last[name]) / (ended - began) for name in ("SuccessfulCall(C)", "TotalCallCreated"))


def peak_bytes(pid):
    """The most memory that a process has had in RAM."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
