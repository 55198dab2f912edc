"""A flame graph as one SVG file, drawn from the top down: wider is longer, each function below its caller.

It is whole without its script: boxes are nested <svg> elements placed in per cent, so that they follow any width and clip
their text.  The script (static/flame.js) adds zoom, search and keys.  Colours are plain rules, without variables, for viewers that
know no more.
"""
import colorsys
import os
import re
import textwrap
from html import escape
from zlib import crc32

from modwsgi_tel import figures
from modwsgi_tel.profile.folded import frame_text
from modwsgi_tel.profile.samples import is_group

BOXES = 8000                            # drawn at most
SMALLEST = 0.0005                       # share below which a box is not drawn: half a pixel of a usual window
DEEPEST = 1000                          # rows drawn at most
ROW = 18                                # pixels
NARROW = 1.8                            # per cent: without the script, a narrower box shows no text
HUES, _NEXT_HUE = 24, 7                 # the second has no divisor in common with the first
STEPS = 5                               # of red, and of blue
LINES_TOLD = 6                          # of a function, in its tooltip
_HEAD_ROW, _MARGIN = 18, 8
_HEAD_SIZE = 92                         # characters of a line above the graph
LEGEND = "Wider is longer; what a function calls is below it. A colour is a file, pale: a library."
DIFF_LEGEND = "Red grew, blue shrank (share of the whole). A box is as wide as the mean of both."
_LIBRARY = ("/lib/python", "/lib64/python", "/site-packages/", "/dist-packages/", "<frozen ")


class _Box:
    __slots__ = ("row", "x", "width", "kind", "label", "title")

    def __init__(self, row, x, width, kind, label, title):
        self.row, self.x, self.width, self.kind, self.label, self.title = row, x, width, kind, label, title


class _Drawn:
    """The boxes of a tree, parents first; hidden, hidden_s: functions too small or too deep to draw, and their time, each once."""

    def __init__(self, root, differs):
        self.differs = differs
        self.hues = {}                  # file -> hue
        self.whole_s = _width_s(root, differs) or 1.0
        self.own_s, self.before_s = root.total_s or 1.0, root.before_s or 1.0
        self.boxes, self.hidden, self.hidden_s = [], 0, 0.0
        self.limit_s = self._limit(root)
        self._draw(root)
        self.rows = max((box.row for box in self.boxes), default=0) + 1

    def _limit(self, root):
        """Seconds below which a box is not drawn: no more than BOXES are."""
        widths = sorted((_width_s(node, self.differs) for node in _all(root)), reverse=True)
        limit_s = self.whole_s * SMALLEST
        return max(limit_s, widths[BOXES] * 1.000001) if len(widths) > BOXES else limit_s

    def _draw(self, root):
        waiting = [(root, 0, 0.0)]
        while waiting:
            node, row, start_s = waiting.pop()
            if isinstance(node, list):
                self._hide(node, row, start_s)
                continue
            self._box(node, row, start_s)
            shown, small = [], []
            for child in sorted(node.children.values(), key=self._order):
                width_s = _width_s(child, self.differs)
                if width_s >= self.limit_s and row + 1 < DEEPEST:
                    shown.append((child, row + 1, start_s))
                    start_s += width_s
                elif width_s > 0:
                    small.append(child)
            if small:
                shown.append((small, row + 1, start_s))
            waiting.extend(reversed(shown))

    def _order(self, node):
        return -_width_s(node, self.differs), node.name[0], node.name[1] or ""

    def _hide(self, nodes, row, start_s):
        """Count what is not drawn; one box stands for it where that is wide enough."""
        width_s = sum(_width_s(node, self.differs) for node in nodes)
        count = sum(1 for node in nodes for _ in _all(node))
        self.hidden += count
        self.hidden_s += width_s
        if width_s >= self.limit_s and row < DEEPEST:
            said = f"{count:,} functions that are too small to draw" if count > 1 else "1 function that is too small to draw"
            self.boxes.append(_Box(row, start_s / self.whole_s, width_s / self.whole_s, "s", f"({count:,} small)",
                                   f"{said}: {_share(width_s, self.whole_s)} in all"))

    def _box(self, node, row, start_s):
        if node.name is None:
            self.boxes.append(_Box(0, 0.0, 1.0, "g", "all", f"all: {figures.duration(node.total_s)}"))
            return
        function, file = node.name
        width = _width_s(node, self.differs) / self.whole_s
        label = function if file is None else f"{function} ({_base(file)})"
        self.boxes.append(_Box(row, start_s / self.whole_s, width, self._kind(node), label, self._title(node)))

    def _kind(self, node):
        """The class of a box, which gives its colour: by its file; g: a group, m: what was not read."""
        if self.differs:
            return _grown(node.total_s / self.own_s, node.before_s / self.before_s)
        function, file = node.name
        if file is None:
            return "g" if is_group(function) else "m"
        return f"{'l' if any(part in file for part in _LIBRARY) else 'h'}{self._hue(file)}"

    def _hue(self, file):
        """Its own as far as there are enough, and mostly the same in every graph."""
        hue = self.hues.get(file)
        if hue is None:
            hue = crc32(file.encode("utf-8")) % HUES
            while len(self.hues) < HUES and hue in self.hues.values():
                hue = (hue + _NEXT_HUE) % HUES
            self.hues[file] = hue
        return hue

    def _title(self, node):
        parts = [frame_text(*node.name)]
        now = _share(node.total_s, self.own_s)
        if self.differs:
            points = node.total_s / self.own_s - node.before_s / self.before_s
            parts.append(f"before {_share(node.before_s, self.before_s)}, after {now}: {points * 100:+.2f} points")
        else:
            parts.append(f"{now}, {figures.duration(node.total_s)}; itself {_share(node.own_s, self.own_s)}, "
                         f"{figures.duration(node.own_s)}")
        lines = sorted(node.lines.items(), key=lambda each: (-each[1], each[0]))
        if lines:
            told = ", ".join(f"{line}: {_share(seconds, node.total_s)}" for line, seconds in lines[:LINES_TOLD])
            more = f" and {len(lines) - LINES_TOLD} more" if len(lines) > LINES_TOLD else ""
            parts.append(f"{'lines' if len(lines) > 1 else 'line'} {told}{more}")
        return "\n".join(parts)


def flame(root, profile, former=None):
    """Pieces of text: the SVG of a tree's root; with a Former, coloured by what grew and what shrank."""
    drawn = _Drawn(root, former is not None)
    lines = _header(profile, former, drawn)
    top = _MARGIN + len(lines) * _HEAD_ROW
    first = top + 2 * _HEAD_ROW + 14                    # a row for the controls, one for what is pointed at
    height = first + drawn.rows * ROW + _MARGIN
    yield (f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="100%" '
           f'height="{height}" class="flame">\n<title>{_text(lines[0])}</title>\n'
           f"<style>\n{_style(drawn, former is not None)}</style>\n"
           '<rect class="page" width="100%" height="100%"/>\n')
    for number, line in enumerate(lines):
        yield (f'<text class="{"what" if number == 0 else "head"}" x="{_MARGIN}" y="{_MARGIN + 12 + number * _HEAD_ROW}">'
               f"{_text(line)}</text>\n")
    yield (f'<g id="controls" data-y="{top}"><text class="head" x="{_MARGIN}" y="{top + 17}">'
           'Zoom and search need a script: open this file in a browser.</text></g>\n'
           f'<text id="told" class="head" x="{_MARGIN}" y="{top + _HEAD_ROW + 20}"></text>\n'
           f'<svg id="boxes" y="{first}" width="100%" height="{drawn.rows * ROW}">\n')
    for box in drawn.boxes:
        yield _drawn_box(box)
    yield f"</svg>\n<script><![CDATA[\n{_static('flame.js')}]]></script>\n</svg>\n"


def _header(profile, former, drawn):
    lines = profile.told()
    if former is not None:
        lines = [f"after: {lines[0]}"] + lines[1:] + [f"before: {former.told}"]
    if not profile.taken:
        lines.append("no samples were taken")
    if drawn.hidden:
        lines.append(f"too small or too deep to be drawn one by one: {drawn.hidden:,} places, "
                     f"{_share(drawn.hidden_s, drawn.whole_s)} of the width")
    lines.append(DIFF_LEGEND if former is not None else LEGEND)
    return [part for line in lines for part in _wrapped(line)]


def _wrapped(line):
    """Parts of a line that fit; a figure stays beside the word before it."""
    parts = textwrap.wrap(re.sub(r" (?=\d)", "\xa0", line), _HEAD_SIZE)
    return [part.replace("\xa0", " ") for part in parts] or [""]


def _drawn_box(box):
    narrow = " n" if box.width * 100 < NARROW else ""
    return (f'<svg class="b {box.kind}{narrow}" x="{box.x * 100:.4f}%" y="{box.row * ROW}" width="{box.width * 100:.4f}%" '
            f'height="{ROW}"><title>{_text(box.title)}</title><rect width="100%" height="{ROW - 1}"/>'
            f'<text x="3" y="13">{_text(box.label)}</text></svg>\n')


def _grown(after, before):
    """The class of a box that compares two shares: u1 to u5 grew, d1 to d5 shrank, e: equal."""
    points = after - before
    if abs(points) < 0.0005:
        return "e"
    relative = abs(points) / max(after, before)
    step = min(STEPS, 1 + int(relative * STEPS))
    return f"{'u' if points > 0 else 'd'}{step}"


def _colours(differs, dark):
    """{class: fill} of boxes."""
    if differs:
        fills = {"g": _fill(0, 0, dark), "e": _fill(0, 0, dark), "s": _fill(0, 0, dark)}
        for step in range(1, STEPS + 1):
            share = step / STEPS
            fills[f"u{step}"] = _fill(0.0, 0.25 + 0.55 * share, dark, 0.06 * share)
            fills[f"d{step}"] = _fill(0.6, 0.25 + 0.55 * share, dark, 0.06 * share)
        return fills
    fills = {"g": _fill(0, 0, dark), "s": _fill(0, 0, dark), "m": _fill(0.13, 0.85, dark)}
    for hue in range(HUES):
        fills[f"h{hue}"] = _fill(hue / HUES, 0.52, dark)
        fills[f"l{hue}"] = _fill(hue / HUES, 0.16, dark)
    return fills


def _fill(hue, saturation, dark, shade=0.0):
    lightness = 0.30 + shade if dark else 0.82 - shade
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _style(drawn, differs):
    used = {box.kind for box in drawn.boxes}
    light, dark = (_colours(differs, each) for each in (False, True))
    rules = "".join(f".{kind} rect {{ fill: {light[kind]} }}\n" for kind in sorted(used))
    dark_rules = "".join(f"  .{kind} rect {{ fill: {dark[kind]} }}\n" for kind in sorted(used))
    css = _static("flame.css")
    return f"{css}{rules}@media (prefers-color-scheme: dark) {{\n{dark_rules}}}\n"


def _width_s(node, differs):
    """Seconds that the width of a box stands for: those of a node, or the mean of both recordings."""
    return (node.total_s + node.before_s) / 2 if differs else node.total_s


def _all(node):
    """A node and all below it."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.children.values())


def _base(file):
    return file.rsplit("/", 1)[-1] or file


def _share(seconds, of_s):
    return f"{seconds / of_s * 100:.2f} %" if of_s else figures.UNKNOWN


def _text(text):
    return escape(text, quote=True)


def _static(name):
    """A file beside this module; from the .pyz too, whose loader has it in memory."""
    return __loader__.get_data(os.path.join(os.path.dirname(__file__), "static", name)).decode("utf-8")
