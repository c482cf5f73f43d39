"""Memory of stations that are registered and idle. They register from one socket, each with digest, many at once."""

import hashlib
import json
import os
import re
import socket
import subprocess
import time

from harness import Failed, Processes, family, metric, resident_bytes, start_engine, stop
from registrations import ha1

# Requests under way: so many nonces, each with so many. A nonce count may be overtaken by 31 others.
NONCES, EACH = 8, 16
# A request without an answer is sent again.
RETRY_S = 1.0
# An actor of a station ends after 10 s without work.
REST_S = 15
# What a start with such a store takes for a while; a machine with less has to do without.
BYTES_TO_START = 9_000
ENGINE = ("127.0.0.1", 5080)
# What is kept of messages for people is not a station's.
NODE = "sip_trace_mb = 0"
HA2 = hashlib.md5(b"REGISTER:sip:127.0.0.1").hexdigest()


class Lane:
    """One nonce, and the stations that are registering by it."""

    def __init__(self):
        self.nonce, self.count = None, 0

    def authorization(self, user):
        """The header that answers the challenge (RFC 7616); nothing before the first one."""
        if self.nonce is None:
            return ""
        self.count += 1
        counted = f"{self.nonce}:{self.count:08x}:0a4f113b:auth"
        response = hashlib.md5(f"{ha1(user)}:{counted}:{HA2}".encode()).hexdigest()
        return (
            f'Authorization: Digest username="{user}",realm="127.0.0.1",nonce="{self.nonce}",uri="sip:127.0.0.1",qop=auth,'
            f'nc={self.count:08x},cnonce="0a4f113b",algorithm=MD5,response="{response}"\r\n'
        )


class Phones:
    """Phones that register, each once."""

    def __init__(self, count):
        self.waiting = iter(range(count))
        self.left = count
        self.under_way = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.connect(ENGINE)
        self.socket.settimeout(RETRY_S / 4)
        self.port = self.socket.getsockname()[1]

    def send(self, phone, lane, cseq):
        """Sends a phone's REGISTER."""
        user = f"u{phone}"
        request = (
            f"REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{phone}-{cseq}\r\n"
            f"From: <sip:{user}@127.0.0.1>;tag={phone}\r\nTo: <sip:{user}@127.0.0.1>\r\nCall-ID: r{phone}@127.0.0.1\r\n"
            f"CSeq: {cseq} REGISTER\r\nContact: <sip:{user}@127.0.0.1:{self.port}>\r\n{lane.authorization(user)}"
            "Expires: 36000\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        self.under_way[phone] = [lane, cseq, request, time.monotonic()]
        self.socket.send(request)

    def next(self, lane):
        """The next phone begins."""
        phone = next(self.waiting, None)
        if phone is not None:
            self.send(phone, lane, 1)

    def answered(self, answer):
        """An answer; a challenge is met, and after a 200 the next phone begins."""
        found = re.search(rb"^SIP/2\.0 (\d+).*?\r\nCall-ID: r(\d+)@.*?\r\nCSeq: (\d+) ", answer, re.S)
        if not found:
            return
        status, phone, cseq = (int(number) for number in found.groups())
        lane, current = self.under_way.get(phone, (None, None))[:2]
        if current != cseq:
            return
        if status == 401:
            nonce = re.search(rb'nonce="([^"]+)"', answer).group(1).decode()
            if nonce != lane.nonce:
                lane.nonce, lane.count = nonce, 0
            self.send(phone, lane, cseq + 1)
        elif status == 200:
            del self.under_way[phone]
            self.left -= 1
            self.next(lane)
        else:
            raise Failed(f"a REGISTER was answered {answer.decode(errors='replace')}")

    def register(self, patience):
        """Registers all."""
        end, looked = time.monotonic() + patience, time.monotonic()
        for _ in range(NONCES):
            lane = Lane()
            for _ in range(EACH):
                self.next(lane)
        while self.left:
            try:
                self.answered(self.socket.recv(65535))
            except TimeoutError:
                pass
            now = time.monotonic()
            if now > end:
                raise Failed(f"{self.left} stations are not registered within {patience} s")
            if now - looked > RETRY_S / 2:
                looked = now
                for state in self.under_way.values():
                    if now - state[3] > RETRY_S:
                        state[3] = now
                        self.socket.send(state[2])


def available_bytes():
    """Memory that the machine can still give."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def settled(pids, quiet=5):
    """Memory once it no longer changes: what was used for a while is given back bit by bit."""
    sizes = []
    while len(sizes) < 60:
        sizes.append(resident_bytes(pids))
        if len(sizes) > quiet and max(sizes[-quiet:]) - min(sizes[-quiet:]) < 1_000_000:
            break
        time.sleep(1)
    return sizes[-1]


def fill(processes, binaries, count):
    """Puts so many stations into the store of an engine by `tandem import`; the memory of the engine before."""
    engine = start_engine(processes, binaries, "bypass", node=NODE)
    empty = settled(family(engine.pid))
    file = processes.directory / "stations.jsonl"
    with open(file, "w", encoding="ascii") as lines:
        for n in range(count):
            station = {"name": f"u{n}", "extension": str(n + 10_000_000), "ha1_md5": ha1(f"u{n}"), "media": "bypass"}
            lines.write(json.dumps(station) + "\n")
    command = [binaries / "tandem", "--config", processes.directory / "tandem.toml", "import", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"tandem import: {done.stderr}")
    stop(engine)
    processes.started.remove(engine)
    return empty


def registered(directory, binaries, count):
    """Bytes for each of so many stations: once they are configured, and once they are registered and rest."""
    if available_bytes() < count * BYTES_TO_START:
        raise Failed(f"this machine has not the memory to start with {count} stations")
    os.makedirs(directory)
    with Processes(directory) as processes:
        empty = fill(processes, binaries, count)
        engine = start_engine(processes, binaries, "bypass", node=NODE, patience=30 + count // 2000)
        pids = family(engine.pid)
        configured = settled(pids)
        began = time.monotonic()
        Phones(count).register(60 + count // 500)
        took = time.monotonic() - began
        processes.wait_until("transactions are over", lambda: metric(engine, "tandem_transactions_active") == 0, 90)
        time.sleep(REST_S)
        if metric(engine, "tandem_registrations_active") != count:
            raise Failed(f"{metric(engine, 'tandem_registrations_active')} registrations instead of {count}")
        size = settled(pids)
    return {
        "stations": count,
        "bytes_each": round((size - empty) / count),
        "bytes_configured": round((configured - empty) / count),
        "registered_per_s": round(count / took),
    }


def memory(directory, binaries, quick):
    """Bytes per registered idle station, what is known of it from the store included."""
    results = []
    for count in [10_000] if quick else [100_000, 1_000_000]:
        own = registered(directory / f"stations-{count}", binaries, count)
        results.append(
            {
                "what": f"memory per registered idle station, {count} of them ({own['bytes_configured']} of it before it registers)",
                "unit": "bytes",
                "peer_name": None,
                "tandem": own,
                "peer": None,
                "figure": "bytes_each",
                "reach": 600,
            }
        )
    return results
