"""TLS handshakes one after the other, each with a request over it: what they cost, and whether anything of them stays."""

import os
import socket
import ssl
import subprocess
import time

from harness import Failed, Processes, cpu_seconds, metrics, resident_bytes, start_engine
from soak import trend

PORT = 5081
# Connections that are open at once.
WIDTH = 8
# So often the memory is looked at.
BATCHES = 10
# How far the memory goes up and down by itself: with 10,000 handshakes 200 bytes of each are found, less than any object of one.
MOST_BYTES = 2_000_000


def make_certificate(directory):
    """A certificate of an elliptic curve, as new ones are."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "own.key", "-out", "own.pem"],
        cwd=directory, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )


def listener(directory):
    """Settings of a listener of TLS."""
    return f"""
[[listen]]
name = "tls"
transport = "tls"
address = "127.0.0.1:{PORT}"
certificate = "{directory / "own.pem"}"
private_key = "{directory / "own.key"}"
"""


def request(number):
    """One that is answered without any state."""
    return (
        f"OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bKtls{number}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:bench@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1>\r\nCall-ID: tls{number}\r\nCSeq: 1 OPTIONS\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def shake(context, count, begin):
    """So many connections, each with one request; gives how many were answered."""
    answered = 0
    for first in range(begin, begin + count, WIDTH):
        streams = []
        for number in range(first, min(first + WIDTH, begin + count)):
            stream = context.wrap_socket(socket.create_connection(("127.0.0.1", PORT), timeout=20), server_hostname="127.0.0.1")
            stream.sendall(request(number))
            streams.append(stream)
        for stream in streams:
            answered += stream.recv(65535).startswith(b"SIP/2.0 200 ")
            stream.close()
    return answered


def connections(engine):
    """How many are left."""
    return metrics(engine)["tandem_sip_connections_active"]


def handshakes(directory, binaries, quick):
    """Memory before and after, CPU between."""
    count, warm = (5000 if quick else 10_000), 2000
    directory = directory / "tls"
    os.makedirs(directory)
    make_certificate(directory)
    context = ssl.create_default_context(cafile=directory / "own.pem")
    with Processes(directory) as processes:
        # The trace of SIP fills up, and is none of TLS's.
        engine = start_engine(processes, binaries, "bypass", listener(directory), "sip_trace_mb = 0")
        shake(context, warm, 0)
        processes.wait_until("the connections have ended", lambda: connections(engine) == 0)
        cpu, began = cpu_seconds([engine.pid]), time.monotonic()
        answered, samples = 0, []
        for first in range(warm, warm + count, count // BATCHES):
            answered += shake(context, count // BATCHES, first)
            processes.wait_until("the connections have ended", lambda: connections(engine) == 0)
            samples.append((first, resident_bytes([engine.pid])))
        took = time.monotonic() - began
        used = cpu_seconds([engine.pid]) - cpu
        # The allocator keeps a page more or less from batch to batch: what stays of each handshake is the trend.
        left = trend(samples)
        if left * count > MOST_BYTES:
            raise Failed(f"{count} handshakes left {left:.0f} bytes of each behind")
    figures = {
        "calls": answered,
        "failed": count - answered,
        "us_per_handshake": round(1e6 * used / count, 1),
        "per_second": round(count / took),
        "bytes_left_of_each": round(left, 1),
    }
    what = f"TLS 1.3 handshake of {count}, one request over each"
    return [
        {"what": f"{what}: CPU", "unit": "us", "peer_name": None, "tandem": figures, "peer": None, "figure": "us_per_handshake", "reach": None},
        {"what": f"{what}: memory left", "unit": "bytes", "peer_name": None, "tandem": figures, "peer": None, "figure": "bytes_left_of_each", "reach": None},
    ]
