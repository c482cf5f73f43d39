"""How long a reload takes that changes one of many stations, and what calls notice of it."""

import json
import os
import statistics
import subprocess
import threading
import time

from calls import place, start_callee
from established import hold
from harness import Failed, Processes, metric, start_engine

# Calls a second while settings are reloaded, the calls that are up all the time, and the rest between two reloads.
RATE, HELD, BETWEEN_S = 500, 500, 0.5


def stations(count, limit):
    """So many stations, the last of which may have so many calls."""
    lines = []
    for n in range(count):
        lines.append(f'[[station]]\nname = "u{n}"\nextension = "{n + 10_000_000}"\npassword = "secret-of-{n}"\n')
    return "".join(lines) + f"max_calls = {limit}\n"


class Reloads:
    """Reloads, each with another limit of one station."""

    def __init__(self, processes, binaries, count):
        self.settings = processes.directory / "tandem.toml"
        self.rest = self.settings.read_text(encoding="utf-8").removesuffix(stations(count, 1))
        self.command = [binaries / "tandem", "--config", self.settings, "reload", "--json"]
        self.count, self.limit, self.took, self.waited = count, 1, [], []

    def once(self):
        """One more."""
        self.limit += 1
        self.settings.write_text(self.rest + stations(self.count, self.limit), encoding="utf-8")
        began = time.monotonic()
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        self.waited.append(1000 * (time.monotonic() - began))
        if done.returncode:
            raise Failed(f"tandem reload: {done.stderr}")
        answer = json.loads(done.stdout)
        if answer["result"] != "applied" or len(answer["changes"]) != 1:
            raise Failed(f"tandem reload: {done.stdout}")
        self.took.append(answer["took_ms"])


def under_load(processes, name, seconds, meanwhile):
    """Places calls, and does something again and again meanwhile; what came of the calls."""
    over, faults = threading.Event(), []

    def again():
        try:
            while not over.wait(BETWEEN_S):
                meanwhile()
        except Failed as fault:
            faults.append(fault)

    beside = threading.Thread(target=again)
    beside.start()
    try:
        return place(processes, name, 5080, RATE, seconds)
    finally:
        over.set()
        beside.join()
        for fault in faults:
            raise fault


def measured(directory, binaries, count, seconds):
    """Reloads of an idle engine, and of one with calls, beside calls without reloads."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        engine = start_engine(processes, binaries, "bypass", more=stations(count, 1), patience=60)
        start_callee(processes)
        place(processes, "warm-up", 5080, RATE, 2)
        reloads = Reloads(processes, binaries, count)
        for _ in range(10):
            reloads.once()
            time.sleep(BETWEEN_S / 5)
        idle, reloads.took, reloads.waited = reloads.took, [], []
        hold(processes, engine, HELD, "bypass")
        alone = under_load(processes, "alone", seconds, lambda: None)
        loaded = under_load(processes, "reloads", seconds, reloads.once)
        if metric(engine, "tandem_reloads_total") != 10 + len(reloads.took):
            raise Failed("not every reload was counted")
        processes.wait_until("the other calls are over", lambda: metric(engine, "tandem_calls_active") <= HELD)
        up = metric(engine, "tandem_calls_active")
    if not reloads.took:
        raise Failed("no reload while calls were up")
    if up != HELD:
        raise Failed(f"of {HELD} calls that were up {up:.0f} are left")
    return {
        "stations": count,
        "ms": round(statistics.median(reloads.took), 1),
        "longest_ms": round(max(reloads.took), 1),
        "command_ms": round(statistics.median(reloads.waited), 1),
        "idle_ms": round(statistics.median(idle), 1),
        "held": HELD,
        "reloads": len(reloads.took),
        "calls": loaded["calls"],
        "failed": loaded["failed"],
        "retransmissions": loaded["retransmissions"],
        "retransmissions_without": alone["retransmissions"],
    }


def compare(directory, binaries, quick):
    """Milliseconds of a reload with 10,000 stations and one change, under calls."""
    count = 10_000
    own = measured(directory / "reload", binaries, count, 5 if quick else 20)
    what = f"reload, {count} stations and one change, under {RATE} calls/s and with {HELD} up"
    told = f"longest {own['longest_ms']}, idle {own['idle_ms']}, the whole command {own['command_ms']}; repeats {own['retransmissions']}, without {own['retransmissions_without']}"
    return [
        {
            "what": f"{what} ({told})",
            "unit": "ms",
            "peer_name": None,
            "tandem": own,
            "peer": None,
            "figure": "ms",
            "reach": 100,
        }
    ]
