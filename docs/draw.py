#!/usr/bin/env python3
"""Draws docs/overview.svg from the description below: `python3 docs/draw.py`. It needs the standard library only.

The description has one element a line:
  row TITLE                         starts a row of boxes
  box NAME | HEADING | line | ...   a box of the current row
  bar NAME | HEADING | line         a box as wide as the picture, between two rows
  arrow FROM -> TO | line | ...     an arrow: between neighbours of a row, or between a box and the bar
The colours follow the reader's light or dark mode; the background is part of the picture.
"""

import html
import pathlib

DESCRIPTION = """
row Every 15 minutes: back up
box tick   | EventBridge       | a schedule starts | one backup
box ask    | Backup function   | finds the protected | nodes in service
box dump   | Node: the agent   | sends the databases | and files to S3
box commit | Backup function   | checks every object | in S3, then commits
arrow tick -> ask    | event
arrow ask  -> dump   | SSM | command
arrow dump -> commit | event: | command | ended
bar bucket | S3 bucket | A backup exists only if its manifest exists. The manifest is written last.
arrow dump -> bucket    | objects
arrow commit -> bucket  | manifest
row The node is lost or replaced: restore before it may enter service
box launch  | Auto Scaling     | launches a new node; | a launch hook holds it
box choose  | Restore function | waits for the agent, | chooses a backup
box restore | Node: the agent  | verifies, restores, | checks health
box answer  | Restore function | CONTINUE: in service | or ABANDON
arrow launch -> choose   | event
arrow choose -> restore  | SSM | command
arrow restore -> answer  | event: | command | ended
arrow bucket -> choose   | manifests
arrow bucket -> restore  | objects
"""

WIDTH = 1000
MARGIN = 24
BOX_WIDTH = 178
BOX_HEIGHT = 84
BAR_HEIGHT = 62
LINE = 19
# Vertical space for the title of a row, and for an arrow between a row and the bar.
TITLE_HEIGHT = 36
BETWEEN = 62

STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de; }
  .box { fill: #f6f8fa; stroke: #57606a; }
  .bar { fill: #ddf4ff; stroke: #0969da; }
  .arrow { stroke: #57606a; stroke-width: 1.6; fill: none; }
  .head { fill: #57606a; }
  text { fill: #1f2328; font: 14px -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", Helvetica, Arial, sans-serif; }
  .title { font-size: 17px; font-weight: 600; }
  .heading { font-weight: 600; }
  .label { font-size: 13px; fill: #57606a; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d; }
    .box { fill: #151b23; stroke: #9198a1; }
    .bar { fill: #121d2f; stroke: #4493f8; }
    .arrow { stroke: #9198a1; }
    .head { fill: #9198a1; }
    text { fill: #f0f6fc; }
    .label { fill: #b1bac4; }
  }
"""


class Box:
    """A box with its place in the picture, in pixels."""

    def __init__(self, kind, lines, left, top, width, height):
        self.kind, self.lines = kind, lines
        self.left, self.top, self.width, self.height = left, top, width, height

    @property
    def right(self):
        return self.left + self.width

    @property
    def bottom(self):
        return self.top + self.height

    @property
    def middle(self):
        return (self.left + self.width / 2, self.top + self.height / 2)


def parse(description):
    """Returns the rows (title, names), the boxes as (kind, lines) by name, and the arrows (from, to, lines)."""
    rows, boxes, arrows = [], {}, []
    for line in filter(None, map(str.strip, description.splitlines())):
        kind, rest = line.split(maxsplit=1)
        parts = [part.strip() for part in rest.split("|")]
        if kind == "row":
            rows.append((rest, []))
        elif kind == "bar":
            boxes[parts[0]] = (kind, parts[1:])
            rows.append((None, [parts[0]]))
        elif kind == "box":
            boxes[parts[0]] = (kind, parts[1:])
            rows[-1][1].append(parts[0])
        else:
            source, target = (name.strip() for name in parts[0].split("->"))
            arrows.append((source, target, parts[1:]))
    return rows, boxes, arrows


def place(rows, boxes):
    """Returns the titles with their heights, the placed boxes by name, and the height of the picture."""
    titles, placed = [], {}
    top = MARGIN
    for title, names in rows:
        if title is None:
            top += BETWEEN
            placed[names[0]] = Box(*boxes[names[0]], MARGIN, top, WIDTH - 2 * MARGIN, BAR_HEIGHT)
            top += BAR_HEIGHT + BETWEEN - TITLE_HEIGHT // 2
            continue
        # The first title is above its row, the second one below: no arrow from the bar crosses a title.
        above = not placed
        top += TITLE_HEIGHT if above else 0
        titles.append((title, top - 19 if above else top + BOX_HEIGHT + 30))
        gap = (WIDTH - 2 * MARGIN - len(names) * BOX_WIDTH) / (len(names) - 1)
        for number, name in enumerate(names):
            left = MARGIN + number * (BOX_WIDTH + gap)
            placed[name] = Box(*boxes[name], left, top, BOX_WIDTH, BOX_HEIGHT)
        top += BOX_HEIGHT + (0 if above else TITLE_HEIGHT)
    return titles, placed, top + MARGIN


def text(x, y, content, kind, anchor="middle"):
    content = html.escape(content)
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{content}</text>'


def draw_box(box):
    x, y = box.middle
    top = y - (len(box.lines) - 1) * LINE / 2 + 5
    yield f'<rect class="{box.kind}" x="{box.left:.0f}" y="{box.top:.0f}" width="{box.width}" height="{box.height}" rx="8"/>'
    for number, line in enumerate(box.lines):
        yield text(x, top + number * LINE, line, "heading" if number == 0 else "line")


def draw_arrow(source, target, lines):
    if source.kind == target.kind:
        y = source.middle[1]
        start, end = (source.right, y), (target.left, y)
        x = (start[0] + end[0]) / 2
        # The label is above the line; its last line is next to it.
        labels = [text(x, y - 8 - (len(lines) - 1 - n) * 15, line, "label") for n, line in enumerate(lines)]
    else:
        x = (source if source.kind == "box" else target).middle[0]
        down = source.top < target.top
        start, end = (x, source.bottom if down else source.top), (x, target.top if down else target.bottom)
        labels = [text(x + 10, (start[1] + end[1]) / 2 + 4, " ".join(lines), "label", "start")]
    line = 'M{:.0f} {:.0f} L{:.0f} {:.0f}'.format(*start, *end)
    return [f'<path class="arrow" d="{line}" marker-end="url(#head)"/>', *labels]


def draw(description):
    """Returns the picture as SVG."""
    rows, boxes, arrows = parse(description)
    titles, placed, height = place(rows, boxes)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        'aria-labelledby="title">',
        "<!-- Drawn by docs/draw.py: change the description there. -->",
        '<title id="title">Every 15 minutes the node is backed up to S3. A new node is restored from S3 before it may '
        "enter service.</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0 L10 5 L0 10 z"/></marker></defs>',
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="10"/>',
    ]
    svg += [text(MARGIN, y, title, "title", "start") for title, y in titles]
    for box in placed.values():
        svg += draw_box(box)
    for source, target, lines in arrows:
        svg += draw_arrow(placed[source], placed[target], lines)
    return "\n".join([*svg, "</svg>", ""])


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("overview.svg").write_text(draw(DESCRIPTION), encoding="utf-8")
