"""Measures the engine beside its peers and prints a table and a line of JSON. Started by benches/run."""

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
import registrations
import relay
from harness import Failed

# What is measured if nothing is named comes first.
COMPARISONS = {
    "calls": calls.compare,
    "relay": relay.compare,
    "rates": calls.rates,
    "anchored": calls.anchored,
    "delay": calls.delay,
    "register": registrations.compare,
    "memory": established.memory,
    "growth": established.growth,
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
        result["ratio"] = round(own / peer, 2)
        beside, ratio = f"{result['peer_name']} {peer} {unit}", f"{result['ratio']:.2f}"
    reach = result["reach"] or "-"
    losses = f"{lost(result['tandem'])} / {lost(result['peer'])}"
    return f"| {result['what']} | {own} {unit} | {beside} | {ratio} | {reach} | {losses} |"


def main():
    """Runs what is asked for; the status is 1 if a measurement could not be made."""
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__)
    parser.add_argument("--binaries", type=lambda path: pathlib.Path(path).resolve(), required=True, help="where the release build is")
    parser.add_argument("what", nargs="*", metavar="|".join(COMPARISONS), help="which comparisons; calls and relay if none is named, `all` for all")
    arguments = parser.parse_args()
    wanted = list(COMPARISONS) if arguments.what == ["all"] else arguments.what or ["calls", "relay"]
    unknown = set(wanted) - set(COMPARISONS)
    if unknown:
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}")
    quick = os.environ.get("QUICK") == "1"
    # The `with` of each measurement then ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results, faults = [], []
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as directory:
        for name in wanted:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                results += COMPARISONS[name](pathlib.Path(directory), arguments.binaries, quick)
            except Failed as fault:
                faults.append(f"{name}: {fault}")
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}, {machine()}\n")
    print("| work | Tandem | beside | ratio | to reach | lost: Tandem / beside |\n| --- | --- | --- | --- | --- | --- |")
    for result in results:
        print(row(result))
    print()
    print(json.dumps({"date": now, "machine": machine(), "quick": quick, "results": results}))
    for fault in faults:
        print(f"not measured: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
