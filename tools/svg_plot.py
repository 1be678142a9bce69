"""A plot as SVG, in plain Python: curves with markers over a logarithmic axis, a legend, labels that keep apart."""

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 560
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 64, 64  # margins around the axes
FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, GRID = "#222222", "#e2e2e2"
MARKER = 4
LETTER, LINE = 6.4, 14  # width and height of a letter of 12 px, on average
LABEL_GAP = 7


@dataclass(frozen=True)
class Curve:
    name: str
    points: list           # (x, y), ascending in x; positive where the axis is logarithmic
    color: str
    dash: str = ""         # stroke-dasharray
    hollow: bool = False   # markers
    labels: list = field(default_factory=list)  # one a point, or none at all


@dataclass(frozen=True)
class Words:
    title: str
    subtitle: str
    x: str
    y: str


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other):
        return (self.left < other.right and other.left < self.right and
                self.top < other.bottom and other.top < self.bottom)

    def holds(self, other):
        return (self.left <= other.left and other.right <= self.right and
                self.top <= other.top and other.bottom <= self.bottom)


AXES = Box(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)


class Axis:
    """Maps positive numbers to pixels, by their logarithm."""

    MARGIN = 0.07  # of the axis, free at both ends
    Y_STEPS = (1, 2, 3, 5)

    def __init__(self, values, first_pixel, last_pixel, steps):
        self.steps = steps
        margin = max((max(values) / min(values)) ** self.MARGIN, 1.05)
        self.low, self.high = min(values) / margin, max(values) * margin
        self.first, self.last = first_pixel, last_pixel

    def pixel(self, value):
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self):
        """The steps times powers of ten within the axis."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [step * 10.0 ** decade for decade in decades for step in self.steps]
        return [tick for tick in ticks if self.low <= tick <= self.high]


class LinearAxis:
    """Maps numbers to pixels."""

    MARGIN = 0.07
    TICKS = 8  # at most
    Y_STEPS = (1, 2, 5)

    def __init__(self, values, first_pixel, last_pixel, steps):
        self.steps = steps
        margin = self.MARGIN * (max(values) - min(values)) or abs(max(values)) * self.MARGIN or 1.0
        self.low, self.high = min(values) - margin, max(values) + margin
        self.first, self.last = first_pixel, last_pixel

    def pixel(self, value):
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self):
        """Multiples of the smallest step, times a power of ten, that leaves few enough of them."""
        wide = (self.high - self.low) / self.TICKS
        decade = 10.0 ** math.floor(math.log10(wide))
        step = next(scale * decade for scale in (*self.steps, 10) if scale * decade >= wide)
        return [index * step for index in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.6g}"


def text(x, y, words, anchor="middle", size=12, color=INK, more=""):
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} font-size='{size}' fill='{color}' {more}>{escape(words)}</text>"


def line(x1, y1, x2, y2, color, more=""):
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{color}' {more}/>"


def rectangle(box, fill, stroke):
    size = f"width='{box.right - box.left:.1f}' height='{box.bottom - box.top:.1f}'"
    return f"<rect x='{box.left:.1f}' y='{box.top:.1f}' {size} fill='{fill}' stroke='{stroke}'/>"


def draw_grid(x_axis, y_axis, words):
    parts = []
    for tick in x_axis.ticks():
        x = x_axis.pixel(tick)
        parts += [line(x, AXES.top, x, AXES.bottom, GRID), text(x, AXES.bottom + 18, number(tick))]
    for tick in y_axis.ticks():
        y = y_axis.pixel(tick)
        parts += [line(AXES.left, y, AXES.right, y, GRID), text(AXES.left - 8, y + 4, number(tick), "end")]
    parts.append(rectangle(AXES, "none", INK))
    middle = (AXES.top + AXES.bottom) / 2
    parts.append(text((AXES.left + AXES.right) / 2, HEIGHT - 20, words.x, size=13))
    parts.append(text(20, middle, words.y, size=13, more=f"transform='rotate(-90 20 {middle:.1f})'"))
    return parts


def draw_marker(x, y, curve):
    fill = "white" if curve.hollow else curve.color
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{MARKER}' fill='{fill}' stroke='{curve.color}' stroke-width='1.6'/>"


def draw_curve(curve, pixels):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    dash = f" stroke-dasharray='{curve.dash}'" if curve.dash else ""
    stroke = f"<polyline points='{path}' fill='none' stroke='{curve.color}' stroke-width='2'{dash}/>"
    return [stroke, *(draw_marker(x, y, curve) for x, y in pixels)]


def legend_box(curves, taken):
    """The corner of the axes that meets least of what is drawn; at best the top right one."""
    width, height, gap = 54 + LETTER * max(len(curve.name) for curve in curves), 8 + 20 * len(curves), 8
    left, right = AXES.left + gap, AXES.right - gap - width
    top, bottom = AXES.top + gap, AXES.bottom - gap - height
    corners = [(right, top), (left, bottom), (right, bottom), (left, top)]
    corners = [Box(x, y, x + width, y + height) for x, y in corners]
    return min(corners, key=lambda corner: sum(corner.overlaps(box) for box in taken))


def draw_legend(curves, box):
    parts = [rectangle(box, "white", GRID)]
    for row, curve in enumerate(curves):
        y = box.top + 14 + 20 * row
        parts += draw_curve(curve, [(box.left + 8, y), (box.left + 34, y)])
        parts.append(text(box.left + 44, y + 4, curve.name, "start"))
    return parts


def crossed_boxes(pixels):
    """Small boxes along a curve and around its markers, for labels to keep clear of."""
    boxes = [Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in pixels]
    for (x1, y1), (x2, y2) in zip(pixels, pixels[1:]):
        steps = max(1, round(math.hypot(x2 - x1, y2 - y1) / 6))
        for step in range(steps + 1):
            x, y = x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps
            boxes.append(Box(x - 1.5, y - 1.5, x + 1.5, y + 1.5))
    return boxes


def label_places(x, y, words):
    """(anchor, x, baseline, box) of a label around a point, the preferred place first."""
    width = LETTER * len(words)
    for dx, dy, anchor in [(0, 1, "middle"), (0, -1, "middle"), (-1, 1, "end"), (1, -1, "start"), (1, 1, "start"),
                           (-1, -1, "end"), (-1, 0, "end"), (1, 0, "start")]:
        at = x + dx * LABEL_GAP
        baseline = y + 4 + dy * (LABEL_GAP + 7)
        left = at - {"start": 0, "middle": width / 2, "end": width}[anchor]
        yield anchor, at, baseline, Box(left, baseline - LINE + 3, left + width, baseline + 3)


def draw_labels(curve, pixels, taken):
    """Each label where it meets nothing, or else at its first place; adds to `taken`."""
    parts = []
    for words, (x, y) in zip(curve.labels, pixels):
        places = list(label_places(x, y, words))
        inside = [place for place in places if AXES.holds(place[3])] or places
        free = [place for place in inside if not any(place[3].overlaps(box) for box in taken)]
        anchor, at, baseline, box = (free or inside)[0]
        taken.append(box)
        parts.append(text(at, baseline, words, anchor, color=curve.color))
    return parts


def plot(words, curves, y_kind=Axis):
    """The SVG file's text. Curves are drawn in order, the last one on top."""
    x_axis = Axis([x for curve in curves for x, _ in curve.points], AXES.left, AXES.right, (1, 1.5, 2, 3, 4, 6, 8))
    y_axis = y_kind([y for curve in curves for _, y in curve.points], AXES.bottom, AXES.top, y_kind.Y_STEPS)
    pixels = [[(x_axis.pixel(x), y_axis.pixel(y)) for x, y in curve.points] for curve in curves]
    parts = draw_grid(x_axis, y_axis, words)
    for curve, points in zip(curves, pixels):
        parts += draw_curve(curve, points)
    taken = [box for points in pixels for box in crossed_boxes(points)]
    taken.append(legend_box(curves, taken))
    parts += draw_legend(curves, taken[-1])
    for curve, points in zip(curves, pixels):
        parts += draw_labels(curve, points, taken)
    parts.append(text(LEFT, 26, words.title, "start", 16, more="font-weight='bold'"))
    parts.append(text(LEFT, 48, words.subtitle, "start", 12, "#555555"))
    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT}>"
    return "\n".join([head, rectangle(Box(0, 0, WIDTH, HEIGHT), "white", "none"), *parts, "</svg>"]) + "\n"
