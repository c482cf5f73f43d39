"""CPU per relayed RTP packet: two-party calls of G.711, 50 packets a second in each direction."""

import json
import os
import re
import socket
import subprocess

from harness import HERE, Failed, Processes, bound, cpu_seconds, family, start_engine

CALLS = 100
CALLER_PORTS = [41000 + 2 * call for call in range(CALLS)]
CALLEE_PORTS = [51000 + 2 * call for call in range(CALLS)]


def bencoded(value):
    """A value as rtpengine's control protocol writes it."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencoded, value)) + b"e"
    if isinstance(value, dict):
        return b"d" + b"".join(bencoded(key) + bencoded(item) for key, item in sorted(value.items())) + b"e"
    raise TypeError(type(value).__name__)


class Control:
    """rtpengine's control socket."""

    # It answers a number that it knows with what it said before, whoever asks.
    number = 0

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(2)
        self.socket.connect(("127.0.0.1", 22222))

    def ask(self, **question):
        """Asks one thing; the answer as bytes, still encoded."""
        Control.number += 1
        self.socket.send(b"q%d " % Control.number + bencoded(question))
        return self.socket.recv(65535)

    def alive(self):
        """Whether rtpengine answers."""
        try:
            return b"4:pong" in self.ask(command="ping")
        except OSError:
            return False

    def port(self, **question):
        """Hands over a session description; the port that rtpengine puts in its place."""
        answer = self.ask(**question, replace=["origin"], ICE="remove")
        found = re.search(rb"m=audio (\d+)", answer)
        if not found:
            raise Failed(f"rtpengine: {answer!r}")
        return int(found.group(1))


def description(port):
    """A session description of one G.711 stream."""
    return (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
    )


def start_rtpengine(processes):
    """Starts rtpengine, without its kernel module."""
    command = ["rtpengine", "--foreground", "--table=-1", "--interface=127.0.0.1", "--listen-ng=127.0.0.1:22222"]
    command += ["--port-min=30000", "--port-max=39999", "--log-level=3", "--log-stderr", "--num-threads=2"]
    command += [f"--pidfile={processes.directory / 'rtpengine.pid'}", "--delete-delay=0"]
    server = processes.start("rtpengine", command)
    processes.wait_until("rtpengine answers", Control().alive)
    return server


def calls_of_rtpengine(processes):
    """Starts rtpengine and sets calls up; the process and the streams."""
    server, control, streams = start_rtpengine(processes), Control(), []
    for caller, callee in zip(CALLER_PORTS, CALLEE_PORTS):
        call = {"call-id": f"bench-{caller}", "from-tag": "a"}
        for_callee = control.port(command="offer", sdp=description(caller), **call)
        for_caller = control.port(command="answer", sdp=description(callee), **call, **{"to-tag": "b"})
        streams += [(caller, for_caller), (callee, for_callee)]
    return server, streams


def calls_of_engine(processes, binaries):
    """Starts the engine and sets anchored calls up with SIPp; the process and the streams."""
    server = start_engine(processes, binaries, "anchored")
    directory = processes.directory
    sipp = ["sipp", "-i", "127.0.0.1", "-nostdin", "-trace_logs"]
    for name, ports in (("caller", CALLER_PORTS), ("callee", CALLEE_PORTS)):
        lines = "".join(f"{port};\n" for port in ports)
        (directory / f"{name}.csv").write_text("SEQUENTIAL\n" + lines)
    command = sipp + ["-sf", HERE / "media_callee.xml", "-p", 25080, "-inf", directory / "callee.csv"]
    processes.start("callee", command + ["-log_file", directory / "callee.ports"])
    processes.wait_until("SIPp listens", lambda: bound(25080))
    command = sipp + ["-sf", HERE / "media_caller.xml", "127.0.0.1:5080", "-p", 25060, "-s", 100, "-inf", directory / "caller.csv"]
    command += ["-log_file", directory / "caller.ports", "-r", 50, "-m", CALLS, "-l", CALLS, "-d", 600_000]
    processes.start("caller", command)

    def streams():
        files = [directory / f"{name}.ports" for name in ("caller", "callee")]
        lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
        # A retransmitted INVITE is logged again; a line may be half written.
        return sorted({(int(a), int(b)) for a, b in re.findall(r"^(\d+) (\d+)$", "\n".join(lines), re.M)})

    processes.wait_until(f"{CALLS} calls are up", lambda: len(streams()) == 2 * CALLS, 30)
    return server, streams()


def generate(processes, binaries, seconds):
    """Sends and receives; what the generator reports."""
    command = [binaries / "tandem-rtpgen", processes.directory / "streams", str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
    except subprocess.CalledProcessError as error:
        raise Failed(error.stderr) from None
    return json.loads(done.stdout)


def measure(directory, start, binaries, seconds):
    """Starts a server with its calls by `start`, lets the streams settle, and measures."""
    os.makedirs(directory)
    with Processes(directory) as processes:
        server, streams = start(processes)
        (directory / "streams").write_text("".join(f"{local} {remote}\n" for local, remote in streams))
        generate(processes, binaries, 2)
        pids = family(server.pid)
        before = cpu_seconds(pids)
        figures = generate(processes, binaries, seconds)
        used = cpu_seconds(pids) - before
    delivered = figures["received"] / figures["sent"]
    if delivered < 0.9:
        raise Failed(f"only {delivered:.0%} of the packets arrived: {figures}")
    return figures | {"us_per_packet": round(1e6 * used / figures["sent"], 2), "delivered": round(delivered, 4)}


def compare(directory, binaries, quick):
    """The engine beside rtpengine in user space."""
    seconds = 5 if quick else 30
    engine = lambda processes: calls_of_engine(processes, binaries)
    peer = measure(directory / "relay-rtpengine", calls_of_rtpengine, binaries, seconds)
    own = measure(directory / "relay-tandem", engine, binaries, seconds)
    result = {
        "what": f"CPU per RTP packet, {2 * CALLS} streams for {seconds} s",
        "unit": "us",
        "peer_name": "rtpengine (user space)",
        "tandem": own,
        "peer": peer,
        "figure": "us_per_packet",
        "reach": 1.2,
    }
    return [result]
