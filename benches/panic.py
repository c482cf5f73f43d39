"""What callers notice when the actor of their trunk panics: gaps in the answers of calls by this trunk, and calls that fail."""

import datetime
import json
import os
import threading
import time
import urllib.request

from calls import place, start_callee
from harness import Failed, Processes, metric, records, start_engine

# New calls a second, by the trunk that panics; and the rest between two panics, of which five in ten seconds would end the actor.
RATE, BETWEEN_S = 500, 2.5


def chaos(directory, engine, fault):
    """Has the trunk's actor fail."""
    token = (directory / "data" / "http_token").read_text().strip()
    body = json.dumps({"actor": "trunk:out", "do": fault}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{engine.http}/api/v1/chaos", body, headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        if answer.status // 100 != 2:
            raise Failed(f"chaos was answered {answer.status}")


def longest_gap(answers):
    """Milliseconds between an answer and the next at the most."""
    times = sorted(datetime.datetime.fromisoformat(answer).timestamp() for answer in answers)
    return round(1000 * max(later - earlier for earlier, later in zip(times, times[1:])))


def under(directory, processes, engine, name, seconds, fault):
    """Calls while the actor fails again and again, or not at all."""
    over, before = threading.Event(), len(records(directory))
    failures = metric(engine, "tandem_actor_restarts_total")

    def fail():
        while fault and not over.wait(BETWEEN_S):
            try:
                chaos(directory, engine, fault)
            except urllib.error.HTTPError as answer:
                # It rests after the last one.
                if answer.code != 404:
                    raise

    beside = threading.Thread(target=fail)
    beside.start()
    try:
        figures = place(processes, name, 5080, RATE, seconds)
    finally:
        over.set()
        beside.join()
    wanted = before + RATE * seconds
    processes.wait_until("every record is written", lambda: len(records(directory)) >= wanted, 30)
    answered = [record["answer"] for record in records(directory)[before:] if record.get("answer")]
    panics = metric(engine, "tandem_actor_restarts_total") - failures
    if fault and not panics:
        raise Failed("no actor has panicked")
    return figures | {"gap_ms": longest_gap(answered), "panics": round(panics)}


def panic(directory, binaries, quick):
    """The longest gap with panics beside that without."""
    directory, seconds = directory / "panic", 10 if quick else 30
    os.makedirs(directory)
    with Processes(directory) as processes:
        engine = start_engine(processes, binaries, "bypass", variables={"TANDEM_CHAOS": "1"})
        start_callee(processes)
        place(processes, "warm-up", 5080, RATE, 2)
        time.sleep(1)
        without = under(directory, processes, engine, "without", seconds, None)
        once = under(directory, processes, engine, "once", seconds, "panic")
        always = under(directory, processes, engine, "always", seconds, "panic_always")
    told = f"{once['panics']} times; ended by it {always['panics']} times: {always['gap_ms']} ms, {always['failed']} calls lost"
    return [
        {
            "what": f"longest gap between answers by a trunk whose actor panics, {RATE} calls/s for {seconds} s ({told})",
            "unit": "ms",
            "peer_name": "without",
            "tandem": once | {"always": always},
            "peer": without,
            "figure": "gap_ms",
            "reach": "100 ms",
        }
    ]
