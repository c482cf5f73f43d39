"""Proxies that die under calls, and what a refused connection adds to a call."""

import csv
import os
import random
import re
import socket
import statistics
import threading
import time

from calls import SIPP, place
from harness import SCENARIOS, Failed, Processes, bound, metric, records, start_engine

# How many proxies there are, all but one of which die; new calls a second; calls that are up all the time.
PROXIES, RATE, HELD = 8, 200, 200
# Of a new call, so that at any time some end at a proxy that has died meanwhile.
TALK_MS = 500
EIGHT = (
    '\n[[trunk]]\nname = "eight"\nproxies = ['
    + ", ".join(f'"127.0.0.{11 + n}:25080"' for n in range(PROXIES))
    + ']\nselection = "round_robin"\nmedia = "bypass"\n[[dial_plan.pattern]]\npattern = "300"\ntarget = "trunk:eight"\n'
)
# One that answers by TCP, and an address of nobody's.
ANSWERS, REFUSES = "127.0.0.20", "127.0.0.21"


def start_proxy(processes, number):
    """One of the eight. It answers at once: a call that rings at a machine that dies can only ring on."""
    address = f"127.0.0.{11 + number}"
    command = ["sipp", "-i", address, "-mi", address, "-nostdin", "-sf", SCENARIOS / "uas.xml", "-p", 25080]
    proxy = processes.start(f"proxy-{number}", command)
    processes.wait_until("SIPp listens", lambda: bound(25080, address))
    return proxy


def hold(processes, engine, seconds):
    """Calls that are up for so long, as many at each proxy."""
    command = SIPP + ["-sf", SCENARIOS / "caller.xml", "127.0.0.1:5080", "-p", 25061, "-mp", 38000, "-s", 300]
    command += ["-r", 100, "-m", HELD, "-l", HELD, "-d", seconds * 1000, "-recv_timeout", 20000]
    before = metric(engine, "tandem_calls_active")
    held = processes.start("held", command)
    processes.wait_until("calls are up", lambda: metric(engine, "tandem_calls_active") - before >= HELD, 30)
    return held


def die(processes, proxies, between):
    """All but the last end at once, one after the other."""
    for proxy in proxies[:-1]:
        time.sleep(between)
        # That it ends is no fault of the measurement.
        processes.started.remove(proxy)
        proxy.kill()
        proxy.wait()


def set_up_times(directory, name, pid):
    """Milliseconds from INVITE to 200, in order."""
    (file,) = directory.glob(f"{name}_{pid}_rtt.csv")
    with open(file, encoding="ascii", newline="") as rows:
        return sorted(float(row["response_time_ms"]) for row in csv.DictReader(rows, delimiter=";"))


def dying(directory, binaries, between):
    """New calls, and calls that are up, while proxies die with so many seconds between them."""
    os.makedirs(directory)
    seconds = (PROXIES + 1) * between
    with Processes(directory) as processes:
        engine = start_engine(processes, binaries, "bypass", more=EIGHT)
        proxies = [start_proxy(processes, number) for number in range(PROXIES)]
        place(processes, "warm-up", 5080, RATE, 2, "-s", 300)
        held = hold(processes, engine, seconds + 5)
        killer = threading.Thread(target=die, args=(processes, proxies, between))
        killer.start()
        options = ["-s", 300, "-d", TALK_MS, "-trace_rtt", "-rtt_freq", RATE]
        figures = place(processes, "caller", 5080, RATE, seconds, *options)
        killer.join()
        held.wait(timeout=60)
        wanted = 2 * RATE + HELD + RATE * seconds
        processes.wait_until("every record is written", lambda: len(records(directory)) >= wanted, 60)
        ended = [record for record in records(directory) if record.get("answer")]
        dropped = [record for record in ended if record["ended_by"] != "caller"]
        times = set_up_times(directory, "caller", figures["pid"])
    told = f"{HELD} held: {len(dropped)} dropped; set-up p50 {times[len(times) // 2]:.0f}, longest {times[-1]:.0f} ms"
    own = figures | {"dropped": len(dropped), "held_failed": held.returncode != 0, "longest_ms": times[-1]}
    return {
        "what": f"new calls lost while {PROXIES - 1} of {PROXIES} proxies die, {RATE} calls/s for {seconds} s ({told})",
        "unit": "calls",
        "peer_name": None,
        "tandem": own | {"lost": figures["failed"] + len(dropped) + (held.returncode != 0)},
        "peer": None,
        "figure": "lost",
        "reach": 0,
    }


class Caller:
    """A server on the trunk "in" that makes one call after the other, and has a clock finer than SIPp's."""

    def __init__(self, port=25060):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.socket.connect(("127.0.0.1", 5080))
        self.socket.settimeout(10)
        self.at = f"127.0.0.1:{port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, method, uri, call, to, cseq, body=""):
        """Sends a request of a call."""
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.socket.send(
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.at};branch=z9hG4bK{call}{method}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:5550100@{self.at}>;tag={call}\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n"
            f"Contact: <sip:{self.at}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def final(self, call):
        """The final answer to what was asked last in a call."""
        while True:
            answer = self.socket.recv(65535).decode()
            if f"\r\nCall-ID: {call}\r\n" in answer and not answer.startswith("SIP/2.0 1"):
                return answer

    def call(self, number):
        """Milliseconds until a call is answered, which is hung up then."""
        call, uri = f"{random.getrandbits(64):x}", f"sip:{number}@127.0.0.1:5080"
        body = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 36000 RTP/AVP 0\r\n"
        began = time.monotonic()
        self.send("INVITE", uri, call, f"<{uri}>", 1, body)
        answer = self.final(call)
        took = 1000 * (time.monotonic() - began)
        if not answer.startswith("SIP/2.0 200 "):
            raise Failed(f"a call was answered {answer.splitlines()[0]}")
        contact = re.search(r"\r\nContact: <([^>]+)>", answer).group(1)
        to = re.search(r"\r\nTo: ([^\r]+)", answer).group(1)
        self.send("ACK", contact, call, to, 1)
        self.send("BYE", contact, call, to, 2)
        self.final(call)
        return took


def by_tcp(name, number, proxies):
    """A trunk by TCP, and the number that leads there."""
    listed = ", ".join(f'"{proxy}"' for proxy in proxies)
    return (
        f'[[trunk]]\nname = "{name}"\ntransport = "tcp"\nproxies = [{listed}]\nmedia = "bypass"\n'
        f'[[dial_plan.pattern]]\npattern = "{number}"\ntarget = "trunk:{name}"\n'
    )


def refused(directory, binaries, samples):
    """The set-up of a call whose first proxies refuse its connection, beside one whose first proxy answers. A trunk tries what
    has refused last from then on, so each call has a trunk of its own."""
    os.makedirs(directory)
    answers, few = f"{ANSWERS}:25081", range(1, PROXIES)
    more = '\n[[listen]]\nname = "tcp"\ntransport = "tcp"\naddress = "127.0.0.1:5080"\n'
    for n in range(samples):
        more += by_tcp(f"direct-{n}", 1000 + n, [answers])
        more += by_tcp(f"one-{n}", 2000 + n, [f"{REFUSES}:25081", answers])
        more += by_tcp(f"seven-{n}", 3000 + n, [f"{REFUSES}:{25080 + port}" for port in few] + [answers])
    with Processes(directory) as processes:
        start_engine(processes, binaries, "bypass", more=more, node="shards = 1")
        command = ["sipp", "-i", ANSWERS, "-nostdin", "-sf", SCENARIOS / "uas.xml", "-p", 25081, "-t", "t1"]
        processes.start("proxy", command)
        processes.wait_until("SIPp listens", lambda: bound(25081, ANSWERS, "tcp"))
        with Caller() as caller:
            # The connection to the one that answers is up then.
            for _ in range(5):
                caller.call(1000)
            direct, one, seven = ([caller.call(base + n) for n in range(samples)] for base in (1000, 2000, 3000))
        tried = [record["attempts"] for record in records(directory)]
        if not any(len(attempts) == PROXIES for attempts in tried):
            raise Failed("no call has met seven refusals")
    median = statistics.median(direct)
    added = {name: round(max(times) - median, 1) for name, times in (("one", one), ("seven", seven))}
    medians = {name: round(statistics.median(times) - median, 1) for name, times in (("one", one), ("seven", seven))}
    told = f"median {medians['one']}; by seven: longest {added['seven']}, median {medians['seven']}"
    return {
        "what": f"longest delay that a refused TCP connection adds, {samples} calls ({told})",
        "unit": "ms",
        "peer_name": None,
        "tandem": {"added_ms": added["one"], "added_by_seven_ms": added["seven"], "medians_ms": medians},
        "peer": {"set_up_ms": round(median, 1)},
        "figure": "added_ms",
        "reach": 50,
    }


def failover(directory, binaries, quick):
    """Proxies that die, and proxies that refuse."""
    return [
        dying(directory / "failover", binaries, 1 if quick else 3),
        refused(directory / "refused", binaries, 20 if quick else 50),
    ]
