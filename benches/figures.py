"""Measures the engine beside its peers, or soaks it, and prints a table and a line of JSON. Started by benches/run."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import signal
import sys
import tempfile

import calls
import established
import failover
import overload
import panic
import plot
import registrations
import relay
import reload
import set_up
import soak
import stations
import tls
import trunks
from harness import Failed

# What is measured if nothing is named comes first.
COMPARISONS = {
    "calls": calls.compare,
    "relay": relay.compare,
    "rates": calls.rates,
    "held": calls.held,
    "anchored": calls.anchored,
    "delay": set_up.delay,
    "register": registrations.compare,
    "memory": established.memory,
    "growth": established.growth,
    "stations": stations.memory,
    "overload": overload.overload,
    "reload": reload.compare,
    "tls": tls.handshakes,
    "failover": failover.failover,
    "trunks": trunks.trunks,
    "panic": panic.panic,
}


def machine():
    """What the figures were taken on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, Linux {platform.release()}"


def lost(figures):
    """What did not arrive."""
    if figures is None:
        return "-"
    if "failed" in figures:
        return f"{figures['failed']} of {figures['failed'] + figures['calls']}"
    return f"{1 - figures['delivered']:.2%}" if "delivered" in figures else "0"


def row(result):
    """One comparison as a line of the table."""
    figure, unit = result["figure"], result["unit"]
    own, beside, ratio = result["tandem"][figure], "-", "-"
    if result["peer_name"]:
        peer = result["peer"][figure]
        result["ratio"] = round(own / peer, 2) if peer else None
        beside, ratio = f"{result['peer_name']} {peer} {unit}", "-" if result["ratio"] is None else f"{result['ratio']:.2f}"
    reach = "-" if result["reach"] is None else result["reach"]
    losses = f"{lost(result['tandem'])} / {lost(result['peer'])}"
    return f"| {result['what']} | {own} {unit} | {beside} | {ratio} | {reach} | {losses} |"


def arguments_of(words):
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__)
    parser.add_argument("--binaries", type=lambda path: pathlib.Path(path).resolve(), required=True, help="where the build is")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="draw CPU per call by rate as SVG")
    parser.add_argument("--gently", action="store_true", help="a soak at a third of the rates, for a debug build")
    parser.add_argument("what", nargs="*", metavar="|".join(COMPARISONS), help="which comparisons; calls and relay if none is named, `all` for all; or `soak [MINUTES]`, 60 unless told otherwise")
    arguments = parser.parse_args(words)
    if arguments.what[:1] == ["soak"]:
        try:
            arguments.minutes = float(*arguments.what[1:]) if arguments.what[1:] else 60.0
        except (TypeError, ValueError):
            parser.error("soak [MINUTES]")
        return arguments
    arguments.minutes = None
    arguments.wanted = list(COMPARISONS) if arguments.what == ["all"] else arguments.what or ["calls", "relay"]
    unknown = set(arguments.wanted) - set(COMPARISONS)
    if unknown:
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}")
    return arguments


def command_of(arguments, quick):
    """How to repeat it."""
    variables = ["QUICK=1"] * quick + ["SHIPPED=1"] * (arguments.binaries.name == "shipped")
    return " ".join([*variables, "benches/run", *arguments.what])


def compare(arguments, directory, quick):
    """Measures what is asked for: the results, and what could not be measured."""
    results, faults = [], []
    for name in arguments.wanted:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            results += COMPARISONS[name](directory, arguments.binaries, quick)
        except Failed as fault:
            faults.append(f"{name}: {fault}")
    print("| work | Tandem | beside | ratio | to reach | lost: Tandem / beside |\n| --- | --- | --- | --- | --- | --- |")
    for result in results:
        print(row(result))
    print()
    return results, faults


def main():
    """Runs what is asked for; the status is 1 if a measurement could not be made, or a soak has failed."""
    arguments = arguments_of(sys.argv[1:])
    quick = os.environ.get("QUICK") == "1"
    # The `with` of each measurement then ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    about = {"date": now, "machine": machine(), "command": command_of(arguments, quick), "quick": quick}
    print(f"{now}, {machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as directory:
        path = pathlib.Path(directory)
        if arguments.minutes is not None:
            try:
                result = soak.soak(path / "soak", arguments.binaries, arguments.minutes, arguments.gently)
            except Failed as fault:
                print(f"FAILED: {fault}")
                return 1
            print(soak.report(result))
            print(json.dumps(about | {"soak": result}))
            return 1 if result["complaints"] else 0
        results, faults = compare(arguments, path, quick)
    line = about | {"results": results}
    print(json.dumps(line))
    figure = plot.draw([line]) if arguments.plot else None
    if figure:
        arguments.plot.write_text(figure, encoding="utf-8")
    elif arguments.plot:
        faults.append("plot: nothing was measured by rate")
    for fault in faults:
        print(f"not measured: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
