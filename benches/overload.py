"""Three times as many calls as can be done: how many are done, in how much memory, and how soon it is over."""

import csv
import os
import sys
import threading

from calls import highest, place, start_callee
from harness import Failed, Processes, metric, start_engine

# New calls for each that can be done.
TIMES = 3
# After so many seconds at half of what can be done everything is taken again.
RECOVERY = 5


def overload(directory, binaries, quick):
    """The engine has half of one core and SIPp, at both ends, another: what SIPp needs is not the engine's, and it can offer three
    times as much as half a core can do."""
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
            # Has the other half.
            processes.start("spins", [sys.executable, "-c", "while True: pass"])
            engine = start_engine(processes, binaries, "bypass", node="shards = 1")
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
        over = {}
        flood = threading.Thread(target=lambda: over.update(place(processes, "over", 5080, TIMES * held, seconds)))
        flood.start()
        file, calls = directory / "overload" / "over.csv", TIMES * held * seconds
        processes.wait_until("all is placed", lambda: file.exists() and placed(file)[-1:] >= [calls], 3 * seconds + 30)
        # SIPp still waits for answers to the last of it.
        elsewhere = ["-p", 25061, "-mp", 38000]
        place(processes, "recovery", 5080, held // 2, RECOVERY, *elsewhere)
        recovered = place(processes, "after", 5080, held // 2, 10, *elsewhere)
        flood.join()
        memory, refused = peak_bytes(engine.pid), metric(engine, "tandem_invites_refused_total")
        offered, done = rates(file, calls)
    if offered < (TIMES - 0.5) * held:
        raise Failed(f"SIPp has placed {offered:.0f} calls/s and not {TIMES * held}")
    what = (
        f"calls/s done of {offered:.0f} offered for {seconds} s, with half a core, beside those held ({refused:.0f} refused; {RECOVERY} s later {recovered['failed']} of "
        f"{recovered['calls'] + recovered['failed']} fail; memory {before >> 20} -> {memory >> 20} MB)"
    )
    return {
        "what": what,
        "unit": "calls/s",
        "peer_name": "held",
        "tandem": over | {"done_per_s": round(done), "after": recovered, "peak_bytes": [before, memory]},
        "peer": {"done_per_s": held},
        "figure": "done_per_s",
        "reach": 0.9,
    }


def rows_of(file):
    """What SIPp tells of each second."""
    with open(file, encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows, delimiter=";"))


def placed(file):
    """How many calls SIPp had placed at the end of each second."""
    return [int(row["TotalCallCreated"] or 0) for row in rows_of(file)]


def rates(file, calls):
    """Calls that were placed a second, and those that were done, while there were any to place."""
    rows, count = rows_of(file), placed(file)
    end = next((n for n, so_far in enumerate(count) if so_far >= calls), len(rows) - 1)
    began, ended = (float(rows[n]["CurrentTime"].split("\t")[-1]) for n in (0, end))
    done = int(rows[end]["SuccessfulCall(C)"]) - int(rows[0]["SuccessfulCall(C)"])
    return (count[end] - count[0]) / (ended - began), done / (ended - began)


def peak_bytes(pid):
    """The most memory that a process has had in RAM."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
