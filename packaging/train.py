"""Has an engine do what engines do most, and what must not take long: calls in bypass, anchored calls, registrations, reloads.
Started by packaging/build."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "benches"))

import calls
import registrations
import reload
from harness import Processes, start_engine

# A second: below what an instrumented program can do.
RATE, SECONDS = 500, 10
STATIONS, RELOADS = 1000, 20


def main():
    """Runs the loads one after the other; what is executed is written down as each engine ends."""
    binaries = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="tandem-train-") as directory:
        path = pathlib.Path(directory)
        for media in ("bypass", "anchored"):
            calls.measure(path / media, lambda p, media=media: [start_engine(p, binaries, media)], 5080, RATE, SECONDS)
        engine = lambda p: start_engine(p, binaries, "bypass", registrations.stations())
        registrations.measure(path / "register", engine, 5080, RATE, SECONDS)
        (path / "reload").mkdir()
        with Processes(path / "reload") as processes:
            start_engine(processes, binaries, "bypass", reload.stations(STATIONS, 1))
            reloads = reload.Reloads(processes, binaries, STATIONS)
            for _ in range(RELOADS):
                reloads.once()


if __name__ == "__main__":
    main()
