"""CPU per registration with digest: REGISTER, 401, REGISTER, 200; the engine commits each before its 200."""

import hashlib
import os

from calls import SIPP, figures_of, start_kamailio
from harness import HERE, Failed, Processes, cpu_seconds, family, start_engine

USERS = 500


def write_users(directory):
    """The phones, for SIPp."""
    lines = "".join(f"u{n};[authentication username=u{n} password=secret]\n" for n in range(USERS))
    (directory / "users.csv").write_text("SEQUENTIAL\n" + lines)


def measure(directory, start, port, rate, seconds):
    """Starts a server by `start`, warms it up, and measures."""
    os.makedirs(directory)
    write_users(directory)

    def register(processes, name, seconds):
        command = SIPP + ["-sf", HERE / "register.xml", f"127.0.0.1:{port}", "-p", "25060", "-inf", directory / "users.csv"]
        return figures_of(processes, name, command, rate, seconds)

    with Processes(directory) as processes:
        server = start(processes)
        register(processes, "warm-up", 2)
        pids = family(server.pid)
        before = cpu_seconds(pids)
        figures = register(processes, "phones", seconds)
        used = cpu_seconds(pids) - before
    if not figures["calls"]:
        raise Failed(f"nobody was registered:\n{processes.log('phones')}")
    return figures | {"us_per_registration": round(1e6 * used / figures["calls"], 1)}


def ha1(user):
    """What digest knows of a password (RFC 7616 3.4.2)."""
    return hashlib.md5(f"{user}:127.0.0.1:secret".encode()).hexdigest()


def stations():
    """Settings of the stations. SIPp knows MD5 only."""
    return "".join(
        f'[[station]]\nname = "u{n}"\nextension = "{n + 10000}"\nha1_md5 = "{ha1(f"u{n}")}"\n' for n in range(USERS)
    )


def compare(directory, binaries, quick):
    """The engine, durable, beside Kamailio in memory."""
    rate, seconds = 1000, 5 if quick else 15
    peer = measure(directory / "register-kamailio", start_kamailio, 5070, rate, seconds)
    engine = lambda processes: start_engine(processes, binaries, "bypass", stations())
    own = measure(directory / "register-tandem", engine, 5080, rate, seconds)
    return [
        {
            "what": f"CPU per registration with digest, {rate} a second for {seconds} s",
            "unit": "us",
            "peer_name": "Kamailio (fm), in memory",
            "tandem": own,
            "peer": peer,
            "figure": "us_per_registration",
            "reach": 1.3,
        }
    ]
