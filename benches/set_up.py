"""What the engine adds to the time until a call is answered: from the caller's INVITE to its 200, as a capture of the loopback sees them.

SIPp's own clock goes in steps of the kernel's tick, 4 ms on many machines: too coarse for a figure of a few milliseconds.
"""

import os
import re
import shutil
import struct
import time

from calls import place, start_callee
from harness import Failed, Processes, start_engine, stop

CALLER = 25060
RATE = 1000
# Of pcap with microseconds, as this machine writes it.
MAGIC = 0xA1B2C3D4
GLOBAL_HEADER, RECORD_HEADER = 24, 16
# Ethernet, as loopback has it, and IPv4 without options.
UDP_AT = 14 + 20
# The head of a message with what it is known by; SDP is not wanted.
SNAPPED = 700
CALL_ID = re.compile(rb"\r\nCall-ID: *([^\r]+)\r", re.IGNORECASE)
ANSWER = re.compile(rb"SIP/2\.0 200 .*\r\nCSeq: *\d+ INVITE\r", re.IGNORECASE | re.DOTALL)


def start_capture(processes, file):
    """Captures what the caller sends and gets. Needs root."""
    tcpdump = shutil.which("tcpdump", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if not tcpdump:
        raise Failed("tcpdump is not installed: apt-get install tcpdump")
    command = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # With the rights it was started with: the directory belongs to nobody else.
    command += [tcpdump, "-i", "lo", "-n", "-Z", "root", "-B", 65536, "-s", SNAPPED, "-w", file, f"udp port {CALLER}"]
    capture = processes.start("capture", command)
    processes.wait_until("tcpdump captures", lambda: "listening on" in processes.log("capture"))
    return capture


def packets(file):
    """Time in microseconds, whether the caller sent it, and payload of each captured packet."""
    data = file.read_bytes()
    if len(data) < GLOBAL_HEADER or struct.unpack_from("=I", data)[0] != MAGIC:
        raise Failed("tcpdump wrote no capture")
    at = GLOBAL_HEADER
    while at + RECORD_HEADER <= len(data):
        seconds, micros, length = struct.unpack_from("=III", data, at)
        packet = data[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
        (source,) = struct.unpack_from("!H", packet, UDP_AT)
        yield seconds * 1_000_000 + micros, source == CALLER, packet[UDP_AT + 8 :]


def times_of(file):
    """Microseconds from the first INVITE of each call to its first 200, sorted."""
    asked, took = {}, {}
    for now, sent, message in packets(file):
        call = CALL_ID.search(message)
        if call and sent and message.startswith(b"INVITE "):
            asked.setdefault(call[1], now)
        elif call and not sent and call[1] in asked and ANSWER.match(message):
            took.setdefault(call[1], now - asked[call[1]])
    return sorted(took.values())


def measure(directory, start, port, seconds):
    """Median and 99th percentile of the time from INVITE to 200, in milliseconds."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        start(processes)
        start_callee(processes)
        place(processes, "warm-up", port, RATE, 2)
        capture = start_capture(processes, directory / "calls.pcap")
        figures = place(processes, "caller", port, RATE, seconds)
        # What the kernel has, it hands over within a second; what it has still then is lost.
        time.sleep(1.5)
        stop(capture)
        lost = re.search(r"^(\d+) packets dropped by kernel", processes.log("capture"), re.MULTILINE)
        times = times_of(directory / "calls.pcap")
    if not lost or int(lost[1]) or len(times) < figures["calls"]:
        raise Failed(f"{len(times)} of {figures['calls']} set-ups were captured:\n{processes.log('capture')}")
    return figures | {f"p{percent}_ms": times[len(times) * percent // 100] / 1000 for percent in (50, 90, 99)}


def delay(directory, binaries, quick):
    """What the engine adds to the time until a call is answered, beside SIPp calling SIPp."""
    seconds = 5 if quick else 15
    direct = measure(directory / "delay-direct", lambda _: None, 25080, seconds)
    through = measure(directory / "delay-tandem", lambda p: start_engine(p, binaries, "bypass"), 5080, seconds)
    added = {f"added_p{percent}_ms": round(through[f"p{percent}_ms"] - direct[f"p{percent}_ms"], 2) for percent in (50, 90, 99)}
    return [
        {
            "what": f"added set-up delay, p99 (p50: {added['added_p50_ms']} ms), {RATE} calls/s for {seconds} s",
            "unit": "ms",
            "peer_name": None,
            "tandem": through | added,
            "peer": direct,
            "figure": "added_p99_ms",
            "reach": 5.0,
        }
    ]
