"""A thousand trunks: how long the engine takes to start with them, and what they cost while there are no calls."""

import os
import socket
import struct
import threading
import time

from harness import Failed, Processes, cpu_seconds, family, metric, start_engine

COUNT = 1000
# OPTIONS to each proxy, seconds: as often as is usual where trunks are watched closely.
QUALIFY_S = 30
PORT = 25090
# Of Linux; Python does not name it.
IP_PKTINFO = 8


class Proxies:
    """Answers OPTIONS at every address of 127.0.0.0/8, from the address that was asked."""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.settimeout(0.2)
        self.socket.bind(("0.0.0.0", PORT))
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.socket.close()

    def answer(self):
        """Until it is over."""
        while not self.over.is_set():
            try:
                request, control = self.socket.recvmsg(65535, 64)[:2]
            except TimeoutError:
                continue
            (asked,) = (data for level, kind, data in control if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO))
            self.respond(request.decode(), struct.unpack("=I4s4s", asked)[2])

    def respond(self, request, at):
        """200, with what a response repeats (RFC 3261 8.2.6)."""
        kept = ("Via:", "From:", "Call-ID:", "CSeq:")
        lines = request.split("\r\n")
        port = int(next(line for line in lines if line.startswith("Via:")).split(";")[0].rsplit(":", 1)[1])
        (to,) = (line for line in lines if line.startswith("To:"))
        response = ["SIP/2.0 200 OK", *(line for line in lines if line.startswith(kept)), f"{to};tag=1", "Content-Length: 0", "", ""]
        source = [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, at, bytes(4)))]
        self.socket.sendmsg(["\r\n".join(response).encode()], source, 0, ("127.0.0.1", port))


def settings(count):
    """So many trunks, each with a proxy of its own."""
    proxies = (f"127.1.{n // 250}.{n % 250 + 1}:{PORT}" for n in range(count))
    return "\n" + "".join(
        f'[[trunk]]\nname = "t{n}"\nproxies = ["{proxy}"]\nqualify_interval_s = {QUALIFY_S}\n' for n, proxy in enumerate(proxies)
    )


def measure(directory, binaries, count, starts, seconds):
    """Seconds until it is ready, the fastest of some starts, and the share of a core that it needs at rest."""
    took = []
    for start in range(starts):
        os.makedirs(directory / f"{start}")
        with Processes(directory / f"{start}") as processes:
            engine = start_engine(processes, binaries, "bypass", more=settings(count), patience=60)
            took.append(engine.ready_s)
            if start + 1 < starts:
                continue
            # In the first seconds all are asked.
            asked_once = lambda: metric(engine, "tandem_sip_messages_total") >= 2 * count
            processes.wait_until("every proxy has been asked", asked_once, 30)
            time.sleep(1)
            pids = family(engine.pid)
            asked = metric(engine, "tandem_sip_messages_total")
            before, began = cpu_seconds(pids), time.monotonic()
            time.sleep(seconds)
            used = (cpu_seconds(pids) - before) / (time.monotonic() - began)
            messages = metric(engine, "tandem_sip_messages_total") - asked
    if count and not messages:
        raise Failed("no proxy was asked")
    return {
        "trunks": count,
        "start_ms": round(1000 * min(took)),
        "slowest_start_ms": round(1000 * max(took)),
        "idle_percent": round(100 * used, 2),
        "messages_per_s": round(messages / seconds),
    }


def trunks(directory, binaries, quick):
    """The start and the rest of an engine with a thousand trunks, beside one that has only those of the measurement."""
    # Each is asked once meanwhile.
    starts, seconds = 2 if quick else 5, QUALIFY_S
    with Proxies():
        many = measure(directory / "trunks", binaries, COUNT, starts, seconds)
    few = measure(directory / "trunks-none", binaries, 0, starts, seconds)
    about = {"peer_name": "with 2", "tandem": many, "peer": few}
    asked = f"OPTIONS to each every {QUALIFY_S} s"
    return [
        {"what": f"start with {COUNT} trunks, {asked}", "unit": "ms", "figure": "start_ms", "reach": "1000 ms", **about},
        {"what": f"idle with {COUNT} trunks, {asked}, of one core", "unit": "%", "figure": "idle_percent", "reach": "1 %", **about},
    ]
