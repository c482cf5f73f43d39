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
import relay
from harness import Failed

COMPARISONS = {"calls": calls.compare, "relay": relay.compare}


def machine():
    """What the figures were taken on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, Linux {platform.release()}"


def row(result):
    """One comparison as a line of the table."""
    own, peer = result["tandem"][result["figure"]], result["peer"][result["figure"]]
    result["ratio"] = round(own / peer, 2)
    reach = f"{result['reach']:.1f}" if result["reach"] else "-"
    if "failed" in result["tandem"]:
        lost = f"{result['tandem']['failed']} calls / {result['peer']['failed']}"
    else:
        lost = f"{1 - result['tandem']['delivered']:.2%} / {1 - result['peer']['delivered']:.2%}"
    unit = result["unit"]
    return f"| {result['what']} | {own} {unit} | {result['peer_name']} {peer} {unit} | {result['ratio']:.2f} | {reach} | {lost} |"


def main():
    """Runs what is asked for; the status is 1 if a measurement could not be made."""
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__)
    parser.add_argument("--binaries", type=pathlib.Path, required=True, help="where the release build is")
    parser.add_argument("what", nargs="*", metavar="calls|relay", help="which comparisons; all if none is named")
    arguments = parser.parse_args()
    unknown = set(arguments.what) - set(COMPARISONS)
    if unknown:
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}")
    quick = os.environ.get("QUICK") == "1"
    # The `with` of each measurement then ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results, faults = [], []
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as directory:
        for name in arguments.what or COMPARISONS:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                results.append(COMPARISONS[name](pathlib.Path(directory), arguments.binaries, quick))
            except Failed as fault:
                faults.append(f"{name}: {fault}")
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}, {machine()}\n")
    print("| work | Tandem | beside | ratio | to reach | lost: Tandem / peer |\n| --- | --- | --- | --- | --- | --- |")
    for result in results:
        print(row(result))
    print()
    print(json.dumps({"date": now, "machine": machine(), "quick": quick, "results": results}))
    for fault in faults:
        print(f"not measured: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
