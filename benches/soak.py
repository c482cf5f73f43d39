"""Soak: calls in bypass, calls that are anchored, and registrations, for a time; the memory must stay flat, and nothing fail.

Everything the engine keeps for a while is there after a warm-up: calls last 3 s, transactions 32 s after that, and the buffers
that are bounded have filled. From then on the memory may not grow.
"""

import os
import statistics
import time

from calls import SIPP, start_callee
from harness import HERE, SCENARIOS, Failed, Processes, family, metrics, resident_bytes, start_engine
from registrations import USERS, stations, write_users

# A second, at full speed; with --gently a third of it, for a debug build on a machine that does other things too.
RATES = {"bypass": 90, "anchored": 30, "register": 30}
HOLD_MS = 3000
WARM_UP_S = 50
# After the load: calls, then transactions (64 * T1).
SETTLE_S = 60
# The memory is flat if its trend over the watched time comes to less than this, which is how far it goes up and down by itself.
# So two minutes find what loses some KB a call, an hour what loses 20 bytes.
GROWTH_BYTES = 8_000_000
# Media ports are bound in blocks of 64 pairs, on each shard, as many calls at once ask for.
MORE_DESCRIPTORS = 600
# What must be 0 at the end of a run in which nothing has gone wrong.
FAULTS = [
    "tandem_actor_restarts_total",
    "tandem_invites_refused_total",
    "tandem_link_shed_total",
    "tandem_mailbox_shed_total",
    "tandem_store_dropped_total",
    "tandem_store_failed_total",
]
# What must be 0 once the load is over.
LEFT = ["tandem_calls_active", "tandem_transactions_active", "tandem_media_sessions_active"]
# So that what is kept of messages has filled in the warm-up.
NODE = "sip_trace_mb = 1"
ANCHORED = """
[[trunk]]
name = "out-anchored"
proxies = ["127.0.0.1:25080"]
media = "anchored"

[[dial_plan.pattern]]
pattern = "200"
target = "trunk:out-anchored"

[[trunk]]
name = "in-anchored"
proxies = ["127.0.0.1:25062"]
media = "anchored"

"""


def loads(directory, rates, seconds):
    """The load, each a name, a command, and how many it places."""
    counts = {name: rate * seconds for name, rate in rates.items()}

    def command(name, *options):
        limits = ["-r", rates[name], "-m", counts[name], "-l", 20000, "-recv_timeout", 20000]
        limits += ["-trace_err", "-error_file", directory / f"{name}.errors"]
        return SIPP + ["127.0.0.1:5080", *options] + limits + ["-timeout", f"{seconds * 2 + 60}s", "-timeout_error"]

    caller = ["-sf", SCENARIOS / "caller.xml", "-d", HOLD_MS]
    users = ["-sf", HERE / "register.xml", "-inf", directory / "users.csv"]
    return [
        ("bypass", command("bypass", *caller, "-p", 25060, "-mp", 36000, "-s", 100)),
        ("anchored", command("anchored", *caller, "-p", 25062, "-mp", 38000, "-s", 200)),
        ("register", command("register", *users, "-p", 25063)),
    ], counts


def descriptors(pid):
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def trend(samples):
    """Bytes a second, or for each of what the samples count: the median of the slopes between their halves (Theil and Sen)."""
    half = len(samples) // 2
    pairs = zip(samples[:half], samples[-half:])
    return statistics.median((later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs)


def watch(processes, engine, load, seconds):
    """Samples the memory each second until the load has ended."""
    pids, samples, began = family(engine.pid), [], time.monotonic()
    while any(process.poll() is None for process in load):
        now = time.monotonic() - began
        if now > 2 * seconds + 90:
            raise Failed("the load does not end")
        if engine.poll() is not None:
            raise Failed(f"the engine has ended with {engine.returncode}:\n{processes.log('tandem')}")
        samples.append((now, resident_bytes(pids), descriptors(engine.pid)))
        time.sleep(1)
    return [sample for sample in samples if WARM_UP_S <= sample[0] <= seconds]


def failures(directory, load):
    """What of the load has failed, in SIPp's words."""
    for process in load:
        if process.returncode:
            errors = directory / f"{process.name}.errors"
            words = errors.read_text(errors="replace")[:1000] if errors.exists() else ""
            yield f"{process.name}: SIPp ended with {process.returncode}: {words}"


def complaints(directory, engine, load, counts, samples):
    """What has gone wrong, and how much the memory has grown."""
    found = list(failures(directory, load))
    figures = metrics(engine)
    found += [f"{name} is {figures[name]:g}" for name in FAULTS if figures.get(name)]
    found += [f"{name} is {figures[name]:g} though the load is over" for name in LEFT if figures.get(name)]
    registered = min(USERS, counts["register"])
    if figures.get("tandem_registrations_active") != registered:
        found.append(f"{figures.get('tandem_registrations_active')} registrations instead of {registered}")
    answered, wanted = figures.get("tandem_calls_total", 0), counts["bypass"] + counts["anchored"]
    if answered != wanted:
        found.append(f"{answered:g} calls have ended of {wanted}")
    watched = samples[-1][0] - samples[0][0]
    slope, size = trend(samples), statistics.median(size for _, size, _ in samples)
    growth = slope * watched
    work = sum(counts.values()) * watched / (samples[-1][0] or 1)
    if growth > GROWTH_BYTES:
        found.append(f"the memory grows: {growth / 1e6:.1f} MB in {watched:.0f} s, {growth / work:.0f} bytes for each call and registration")
    first, last = (statistics.median(part[2] for part in half) for half in (samples[:5], samples[-5:]))
    if last > first + MORE_DESCRIPTORS:
        found.append(f"descriptors grow: from {first:g} to {last:g}")
    return found, {
        "memory_mb": round(size / 1e6, 1),
        "growth_mb": round(growth / 1e6, 2),
        "growth_percent": round(100 * growth / size, 2),
        "watched_s": round(watched),
        "descriptors": last,
        # Seconds, MB and descriptors.
        "samples": [[round(at), round(size / 1e6, 1), open_] for at, size, open_ in samples[:: len(samples) // 60 + 1]],
    }


def soak(directory, binaries, minutes, gently):
    """Runs the load for so long; what came of it, with a verdict."""
    seconds = round(minutes * 60)
    if seconds < WARM_UP_S + 30:
        raise Failed(f"a soak takes at least {(WARM_UP_S + 30) / 60:.1f} minutes")
    os.makedirs(directory)
    write_users(directory)
    rates = {name: rate // 3 if gently else rate for name, rate in RATES.items()}
    plan, counts = loads(directory, rates, seconds)
    with Processes(directory) as processes:
        engine = start_engine(processes, binaries, "bypass", ANCHORED + stations(), NODE)
        start_callee(processes)
        load = [processes.start(name, command) for name, command in plan]
        samples = watch(processes, engine, load, seconds)
        if len(samples) < 20:
            raise Failed("the load has ended too early:\n" + "\n".join(processes.log(process.name) for process in load))
        end = time.monotonic() + SETTLE_S
        while any(metrics(engine).get(name) for name in LEFT) and time.monotonic() < end:
            time.sleep(1)
        found, memory = complaints(directory, engine, load, counts, samples)
    return {"minutes": minutes, "rates": rates, "placed": counts, **memory, "complaints": found}


def report(result):
    """The verdict in words."""
    lines = ["| placed | in | memory | trend over | growth | descriptors |\n| --- | --- | --- | --- | --- | --- |"]
    placed = ", ".join(f"{count} {name}" for name, count in result["placed"].items())
    lines.append(
        f"| {placed} | {result['minutes']:g} min | {result['memory_mb']} MB | {result['watched_s']} s "
        f"| {result['growth_mb']:+} MB ({result['growth_percent']:+} %) | {result['descriptors']:g} |"
    )
    bad = [f"FAILED: {complaint}" for complaint in result["complaints"]]
    return "\n".join(lines + ["", *(bad or ["ok: nothing failed, nothing is left, and the memory is flat"])])
