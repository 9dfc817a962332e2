"""Curves as SVG that takes its colours from the page and stays legible on a phone.

The files of `svg.py` are pictures for any viewer, with colours of their own; these follow dark mode by the classes of
page.css, and a line is told from another by its dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .card import escaped, table_html

MOST_POINTS = 200
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 400.0, 230.0, 44.0, 12.0, 44.0
CLASSES = ("first", "second")
ROUND = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8)  # a quarter of each is a short number


def chart_html(
    title: str,
    names: Sequence[str],
    curves: Mapping[str, Sequence[float | None]],
    *,
    axis: str,
    top: float | None = None,
) -> str:
    """A <figure> of one or two curves over named places, with its numbers as a table; "" where nothing is finite.

    axis: what the places are. top: the end of the y axis, which begins at 0; None: a round number above all values.
    Values that are None or not finite are left out.
    """
    kept = _every(len(names), MOST_POINTS)
    names = [names[i] for i in kept]
    lines = {model: [_finite(values[i]) for i in kept] for model, values in list(curves.items())[: len(CLASSES)]}
    found = [v for values in lines.values() for v in values if v is not None]
    if not found:
        return ""
    top = _round_up(max(found)) if top is None else top
    body = _grid(names, axis, top)
    for kind, values in zip(CLASSES, lines.values(), strict=False):
        body.append(_line(kind, values, len(names), top))
    legend = "".join(
        f'<span><svg viewBox="0 0 32 10" aria-hidden="true"><line class="{kind}" x1="0" x2="32" y1="5" y2="5"/></svg> '
        f"{escaped(model)}</span>"
        for kind, model in zip(CLASSES, lines, strict=False)
    )
    rows = [(name, *(_shown(values[i]) for values in lines.values())) for i, name in enumerate(names)]
    told = escaped(_told(title, lines))
    return (
        f'<figure><figcaption>{escaped(title)}<span class="legend">{legend}</span></figcaption>\n'
        f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{told}">'
        + "".join(body)
        + f"</svg>\n<details><summary>Numbers</summary>{table_html(title, [axis, *lines], rows)}</details></figure>"
    )


def _grid(names: Sequence[str], axis: str, top: float) -> list[str]:
    body = []
    for k in range(5):
        y = _y(top * k / 4, top)
        body.append(f'<line class="grid" x1="{LEFT:.0f}" x2="{WIDTH:.0f}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{LEFT - 6:.0f}" y="{y + 4:.1f}" text-anchor="end">{top * k / 4:.3g}</text>')
    widest = 7.5 * max(map(len, names)) + 12
    for i in _every(len(names), max(int((WIDTH - LEFT) / widest), 1)):
        anchor = f'<text x="{_x(i, len(names))}" y="{HEIGHT - BOTTOM + 18:.0f}" text-anchor="middle">'
        body.append(f"{anchor}{escaped(names[i])}</text>")
    middle = f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6:.0f}" text-anchor="middle">'
    return [*body, f"{middle}{escaped(axis)}</text>"]


def _line(kind: str, values: Sequence[float | None], count: int, top: float) -> str:
    points = [(_x(i, count), _y(v, top)) for i, v in enumerate(values) if v is not None]
    dots = (
        "".join(f'<circle class="{kind}" cx="{x}" cy="{y}" r="3.5"/>' for x, y in points) if len(points) <= 30 else ""
    )
    return f'<polyline class="{kind}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>{dots}'


def _x(i: int, count: int) -> float:
    return round(LEFT + (WIDTH - LEFT) * (i + 0.5) / count, 1)


def _y(value: float, top: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value / top, 0.0), 1.0)), 1)


def _every(count: int, most: int) -> list[int]:
    """At most about `most` of count indices, evenly spaced, the first and the last among them."""
    step = max(math.ceil((count - 1) / max(most - 1, 1)), 1)
    chosen = list(range(0, count, step))
    if chosen and chosen[-1] != count - 1:
        chosen[-1:] = [count - 1] if len(chosen) > 1 else [*chosen, count - 1]
    return chosen


def _finite(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if good and isinstance(value, int | float) else None


def _round_up(value: float) -> float:
    """The least of ROUND times a power of ten that is not below value; 1 for nothing above 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((f * power for f in ROUND if f * power >= value), 10 * power)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _told(title: str, lines: Mapping[str, Sequence[float | None]]) -> str:
    ends = []
    for model, values in lines.items():
        known = [v for v in values if v is not None]
        if known:
            ends.append(f"{model} from {known[0]:.4g} to {known[-1]:.4g}")
    return f"{title}: {'; '.join(ends)}; all numbers in the table below"
