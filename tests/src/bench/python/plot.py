"""Draws time, memory and calls against the size of the task: `plot.py FIGURES.json PLOT.svg`.

One picture of six charts: seconds on top; memory and calls below.
"""

import json
import re
import statistics
import sys
import xml.etree.ElementTree as ElementTree

import pygal
from pygal.style import CleanStyle

WIDTH, HEIGHT = 480, 320
SVG = "http://www.w3.org/2000/svg"
CHARTS = [
    ("seconds", "seconds", "MB of database"),
    ("seconds", "seconds", "protected nodes"),
    ("seconds", "seconds", "backups"),
    ("peak_kib", "MiB of memory", "MB of database"),
    ("calls", "calls", "protected nodes"),
    ("calls", "calls", "backups"),
]


def lines(rows, figure, amount):
    """Returns the lines of a chart, by task: `backup of 40 MB` and `backup of 800 MB` are one line."""
    found = {}
    for row in rows:
        if not row["amount"] or row["amount"]["of"] != amount:
            continue
        samples = row["contenders"][0]["samples"]
        values = [one[figure] for one in samples if one[figure] is not None]
        if values:
            value = statistics.median(values) / (1024 if figure == "peak_kib" else 1)
            name = re.split(r"\d", row["name"])[0].strip()
            found.setdefault(name, []).append((row["amount"]["value"], value))
    return {name: sorted(line) for name, line in found.items()}


def chart(rows, figure, title, amount):
    drawn = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        title=f"{title} against {amount}",
        x_title=amount,
        style=CleanStyle(title_font_size=14, label_font_size=10, legend_font_size=11),
        legend_at_bottom=True,
        range=None,
        include_x_axis=True,
        js=[],
        no_prefix=True,
        disable_xml_declaration=True,
    )
    for name, line in lines(rows, figure, amount).items():
        drawn.add(name, line)
    return drawn.render_tree() if hasattr(drawn, "render_tree") else drawn.render()


def main(figures, plot):
    ElementTree.register_namespace("", SVG)
    with open(figures) as file:
        rows = json.load(file)["rows"]
    whole = ElementTree.Element(f"{{{SVG}}}svg", width=str(3 * WIDTH), height=str(2 * HEIGHT))
    for number, (figure, title, amount) in enumerate(CHARTS):
        drawn = chart(rows, figure, title, amount)
        text = drawn if isinstance(drawn, (str, bytes)) else ElementTree.tostring(drawn)
        part = ElementTree.fromstring(text)
        part.set("x", str(number % 3 * WIDTH))
        part.set("y", str(number // 3 * HEIGHT))
        part.set("width", str(WIDTH))
        part.set("height", str(HEIGHT))
        whole.append(part)
    ElementTree.ElementTree(whole).write(plot, encoding="utf-8")


main(*sys.argv[1:])
