"""What established calls cost: memory for each, and whether many of them make the next call dearer."""

import os

from calls import SIPP, measure_on, place, start_callee
from harness import SCENARIOS, Failed, Processes, family, metric, resident_bytes, start_engine


def hold(processes, engine, calls, media):
    """Sets up calls that stay, in bypass or anchored, and waits until all are up."""
    command = SIPP + ["-sf", SCENARIOS / "caller.xml", "127.0.0.1:5080", "-p", "25061", "-mp", "38000", "-s", "100"]
    command += ["-r", "1000", "-m", calls, "-l", calls, "-d", "3600000"]
    before = metric(engine, "tandem_calls_active")
    processes.start("held", command)
    wanted = before + calls
    processes.wait_until(f"{calls} {media} calls are up", lambda: metric(engine, "tandem_calls_active") >= wanted, 30 + calls // 500)


def memory_of(directory, binaries, media, calls):
    """Bytes of memory per call at rest with so many calls up. What the first calls warm up is not counted: the ring of the
    last SIP messages (`node.sip_trace_mb`) is full then."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        engine = start_engine(processes, binaries, media)
        start_callee(processes)
        warm_up(processes, 6)
        pids = family(engine.pid)
        before = resident_bytes(pids)
        hold(processes, engine, calls, media)
        # Transactions of the set-up are kept for 32 s (64 * T1).
        processes.wait_until("transactions are over", lambda: metric(engine, "tandem_transactions_active") == 0, 60)
        return {"calls": calls, "kb_per_call": round((resident_bytes(pids) - before) / calls / 1000, 1)}


def warm_up(processes, seconds=2):
    """Short calls, 500 a second."""
    place(processes, "warm-up", 5080, 500, seconds)


def memory(directory, binaries, quick):
    """KB per established call."""
    plan = [("bypass", 1000, 10), ("bypass", 10_000, 10), ("anchored", 1000, 30)]
    if not quick:
        plan += [("bypass", 50_000, 10), ("anchored", 4000, 30)]
    return [
        {
            "what": f"memory per established call, {media}, {calls} up",
            "unit": "KB",
            "peer_name": None,
            "tandem": memory_of(directory / f"memory-{media}-{calls}", binaries, media, calls),
            "peer": None,
            "figure": "kb_per_call",
            "reach": reach,
        }
        for media, calls, reach in plan
    ]


def cost_with(directory, binaries, calls, seconds):
    """CPU per call at 500 calls/s while so many others are up."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        engine = start_engine(processes, binaries, "bypass")
        start_callee(processes)
        hold(processes, engine, calls, "bypass")
        warm_up(processes)
        figures = measure_on(processes, "caller", 5080, 500, seconds, [engine])
        if figures["failed"]:
            raise Failed(f"{figures['failed']} calls failed")
        return figures | {"up": calls}


def growth(directory, binaries, quick):
    """CPU per call with many calls up, beside the same with a hundred."""
    seconds, few = (5, 100) if quick else (15, 100)
    base = cost_with(directory / "growth-few", binaries, few, seconds)
    return [
        {
            "what": f"CPU per call with {many} calls up, 500 calls/s for {seconds} s",
            "unit": "us",
            "peer_name": f"with {few} up",
            "tandem": cost_with(directory / f"growth-{many}", binaries, many, seconds),
            "peer": base,
            "figure": "us_per_call",
            "reach": 1.2,
        }
        for many in ([5000] if quick else [5000, 50_000])
    ]
