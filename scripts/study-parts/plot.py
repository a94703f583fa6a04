"""Line charts as SVG: panels side by side, each curve named where it ends, on white, with nothing from elsewhere."""
import math

WIDTH, HEIGHT = 330, 250  # of a panel's plot
LEFT, TOP, GAP, RIGHT, BOTTOM = 58, 58, 190, 120, 56
LABEL = 13

COLORS = {
    "griffin": "#1f6f9f", "griffin-live": "#4aa3d8", "topk": "#b8482e", "wina": "#d98c5f", "countdown": "#8a6d1f",
    "cats": "#c9a227", "static": "#8c8c8c", "svd": "#3d8b45", "lowrank": "#7a5aa6", "aware": "#111111",
    "oracle": "#3f7f7f", "random": "#c5c5c5", "teal": "#c2457f",
    "countdown-d": "#5b6abf",
}
OTHERS = ["#a0522d", "#2f8f8f", "#9c4f7f"]


def color(name, taken={}):  # the default is kept between calls on purpose: a name has one colour
    """A predictor's colour."""
    if name in COLORS:
        return COLORS[name]
    return taken.setdefault(name, OTHERS[len(taken) % len(OTHERS)])


def escape(text):
    """Text as XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _text(x, y, text, anchor="start", style='font-size="11"'):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>'


def _line(x1, y1, x2, y2, style):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


class Panel:
    """A plot: curves of (x, y), horizontal lines, and both ranges."""

    def __init__(self, title, x_title, y_title, x_range, y_range, log_x=False, ticks=None):
        self.title, self.x_title, self.y_title = title, x_title, y_title
        self.x_range, self.y_range, self.log_x, self.ticks = x_range, y_range, log_x, ticks
        self.curves, self.lines = [], []

    def add(self, label, points, stroke, dashed=False, hollow=False):
        """A curve; points outside of the ranges are left out. Without a label it has no dots either."""
        inside = [(x, y) for x, y in sorted(points) if math.isfinite(x) and math.isfinite(y)
                  and self.x_range[0] <= x <= self.x_range[1] and self.y_range[0] <= y <= self.y_range[1]]
        if inside:
            self.curves.append((label, inside, stroke, dashed, hollow))

    def line(self, y, label):
        """A dotted horizontal line."""
        if math.isfinite(y) and self.y_range[0] <= y <= self.y_range[1]:
            self.lines.append((y, label))

    def _at(self, left, x, y):
        lo, hi = self.x_range
        if self.log_x:
            lo, hi, x = math.log2(lo), math.log2(hi), math.log2(x)
        fx = (x - lo) / (hi - lo) if hi > lo else 0.5
        lo, hi = self.y_range
        fy = (y - lo) / (hi - lo) if hi > lo else 0.5
        return left + WIDTH * fx, TOP + HEIGHT * (1 - fy)

    def _axes(self, left):
        out = [_text(left, TOP - 12, self.title, style='font-size="14" font-weight="bold"')]
        for y in steps(*self.y_range):
            _, py = self._at(left, self.x_range[0], y)
            out.append(_line(left, py, left + WIDTH, py, 'stroke="#e4e4e4"'))
            out.append(_text(left - 6, py + 4, f"{y:g}", "end", 'font-size="11" fill="#555"'))
        for x in self.ticks or steps(*self.x_range):
            px, py = self._at(left, x, self.y_range[0])
            out.append(_line(px, py, px, py + 4, 'stroke="#555"'))
            out.append(_text(px, py + 17, f"{x:g}", "middle", 'font-size="11" fill="#555"'))
        out.append(_line(left, TOP + HEIGHT, left + WIDTH, TOP + HEIGHT, 'stroke="#555"'))
        out.append(_text(left + WIDTH / 2, TOP + HEIGHT + 38, self.x_title, "middle", 'font-size="12"'))
        out.append(f'<g transform="translate({left - 42:.1f} {TOP + HEIGHT / 2:.1f}) rotate(-90)">'
                   + _text(0, 0, self.y_title, "middle", 'font-size="12"') + "</g>")
        return out

    def draw(self, left):
        """The panel at this place, as lines of SVG."""
        out = self._axes(left)
        for y, label in self.lines:
            _, py = self._at(left, self.x_range[0], y)
            out.append(_line(left, py, left + WIDTH, py, 'stroke="#222" stroke-dasharray="2 3"'))
            out.append(_text(left + 4, py - 4, label, style='font-size="11" fill="#222"'))
        labels = []
        for label, points, stroke, dashed, hollow in self.curves:
            at = [self._at(left, x, y) for x, y in points]
            dash = ' stroke-dasharray="5 4" stroke-opacity="0.8"' if dashed else ""
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            out.append(f'<polyline fill="none" stroke="{stroke}" stroke-width="1.8"{dash} points="{path}"/>')
            fill = "#fff" if hollow else stroke
            if label:
                out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" fill="{fill}" stroke="{stroke}"/>' for x, y in at]
                labels.append((at[-1], label, stroke))
        return out + self._labels(left, labels)

    def _labels(self, left, labels):
        """In a column right of the plot, in the order of the curves' ends, with a thin line to each."""
        out = []
        labels = sorted(labels, key=lambda item: item[0][1])
        places = spread([y + 4 for (_, y), _, _ in labels], TOP + 8, TOP + HEIGHT + 4)
        for ((x, y), label, stroke), place in zip(labels, places):
            out.append(_line(x + 4, y, left + WIDTH + 10, place - 4, f'stroke="{stroke}" stroke-opacity="0.35"'))
            out.append(_text(left + WIDTH + 13, place, label, style=f'font-size="11" fill="{stroke}"'))
        return out


def spread(wanted, lo, hi):
    """Ascending places, apart by a label's height, as near to the wanted ones as that allows."""
    places = []
    for y in wanted:
        places.append(max(y, lo, places[-1] + LABEL if places else lo))
    limit = hi
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - LABEL
    return places


def steps(lo, hi):
    """Four to ten round numbers in a range."""
    if hi <= lo:
        return [lo]
    step = 10 ** math.floor(math.log10(hi - lo))
    for divisor in (1, 2, 5, 10):
        if (hi - lo) / (step / divisor) >= 4:
            step /= divisor
            break
    first = math.ceil(lo / step - 1e-9)
    return [round(i * step, 10) for i in range(first, int(math.floor(hi / step + 1e-9)) + 1)]


def picture(title, note, panels):
    """All panels side by side, as one file."""
    width = LEFT + len(panels) * (WIDTH + GAP) - GAP + RIGHT
    height = TOP + HEIGHT + BOTTOM + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="sans-serif" fill="#222">', '<rect width="100%" height="100%" fill="#fff"/>',
           _text(LEFT - 40, 24, title, style='font-size="16" font-weight="bold"'),
           _text(LEFT - 40, height - 10, note, style='font-size="11" fill="#555"')]
    for i, panel in enumerate(panels):
        out += panel.draw(LEFT + i * (WIDTH + GAP))
    return "\n".join(out + ["</svg>"]) + "\n"
