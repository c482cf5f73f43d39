"""Draws CPU per call by rate from the JSON lines of benches/run: `python3 benches/plot.py LINES... > docs/cpu-per-call.svg`.

A later line replaces what an earlier one says of the same rate. The figure names its date, machine and command.
"""

import html
import json
import math
import sys

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 74, 52
COLOURS = ["#0b6e4f", "#c1440e", "#3d5a98", "#7a4988"]
# A call in a thousand may fail.
HELD = 0.001


def series(runs):
    """For each server its points: rate, microseconds, and whether it held the rate."""
    found = {}
    for run in runs:
        for result in run["results"]:
            if "rate" not in result:
                continue
            for name, figures in (("Tandem", result["tandem"]), (result["peer_name"], result["peer"])):
                if figures:
                    held = figures["failed"] < HELD * (figures["failed"] + figures["calls"])
                    found.setdefault(name, {})[result["rate"]] = (figures[result["figure"]], held)
    return found


def round_up(value):
    """The next of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


class Drawing:
    """Lines of SVG."""

    def __init__(self, rates, highest):
        self.lines = []
        self.low, self.high = math.log(min(rates)), math.log(max(rates))
        self.step = round_up(highest / 5)
        self.top = self.step * math.ceil(highest / self.step)

    def x(self, rate):
        """Rates are drawn by their logarithm."""
        part = (math.log(rate) - self.low) / (self.high - self.low or 1)
        return LEFT + 20 + part * (WIDTH - LEFT - RIGHT - 40)

    def y(self, value):
        """Costs are drawn from 0."""
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def text(self, x, y, words, size=12, anchor="start", colour="#333", weight="normal"):
        """Words."""
        style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
        self.lines.append(f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(words)}</text>')

    def line(self, a, b, colour="#ddd", width=1):
        """A straight line."""
        self.lines.append(f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{colour}" stroke-width="{width}"/>')

    def axes(self, rates):
        """The grid and what it means."""
        for number in range(round(self.top / self.step) + 1):
            y = self.y(number * self.step)
            self.line((LEFT, y), (WIDTH - RIGHT, y), "#999" if number == 0 else "#e4e4e4")
            self.text(LEFT - 8, y + 4, f"{number * self.step:g}", anchor="end")
        for rate in rates:
            self.line((self.x(rate), HEIGHT - BOTTOM), (self.x(rate), HEIGHT - BOTTOM + 5), "#999")
            self.text(self.x(rate), HEIGHT - BOTTOM + 19, f"{rate:,}", anchor="middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "calls a second", anchor="middle")
        self.text(LEFT - 44, TOP - 12, "µs")

    def curve(self, name, points, colour, label_y):
        """One server: a mark that is not filled is a rate that it did not hold."""
        places = [(self.x(rate), self.y(value)) for rate, (value, _) in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self.lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (_, (value, held)) in zip(places, points):
            fill = colour if held else "#fff"
            self.lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
            self.text(x, y - 10, f"{value:.0f}", 11, "middle", colour)
        self.text(WIDTH - RIGHT + 8, label_y, name, 13, colour=colour, weight="bold")


def draw(runs):
    """The figure as SVG; `None` if nothing was measured by rate."""
    found = series(runs)
    if not found:
        return None
    rates = sorted({rate for points in found.values() for rate in points})
    drawing = Drawing(rates, max(value for points in found.values() for value, _ in points.values()))
    last = [run for run in runs if any("rate" in result for result in run["results"])][-1]
    drawing.text(LEFT, 24, "CPU per call by rate, without media", 16, weight="bold")
    drawing.text(LEFT, 42, f"{last['date']}, {last['machine']}", 11, colour="#666")
    drawing.text(LEFT, 57, f"{last['command']}; hollow: 0.1 % or more of the calls failed", 11, colour="#666")
    drawing.axes(rates)
    lowest_label = HEIGHT
    by_height = sorted(found.items(), key=lambda item: item[1][max(item[1])][0])
    for number, (name, points) in enumerate(by_height):
        ordered = sorted(points.items())
        # Names at the ends of the curves, apart from each other.
        lowest_label = min(drawing.y(ordered[-1][1][0]) + 4, lowest_label - 18)
        drawing.curve(name, ordered, COLOURS[number % len(COLOURS)], lowest_label)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *drawing.lines, "</svg>", ""])


def read(files):
    """The JSON lines in files that may hold more than that."""
    runs = []
    for name in files:
        with open(name, encoding="utf-8") as file:
            runs += [json.loads(line) for line in file if line.startswith('{"date"')]
    return runs


def main():
    """Draws what the named files hold."""
    figure = draw(read(sys.argv[1:]))
    if figure is None:
        sys.exit("plot: no rates in " + (" ".join(sys.argv[1:]) or "nothing; name files with lines of benches/run"))
    sys.stdout.write(figure)


if __name__ == "__main__":
    main()
