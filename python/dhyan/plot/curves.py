"""Curves: BLEU by sentence length as SVG and matplotlib figures, and a run's measures as SVG for pages.

The SVG files are pictures for any viewer, with colours of their own. `chart_html` takes its colours from the page and
stays legible on a phone: it follows dark mode by the classes of page.css, and a line is told from another by its
dashes too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .card import table_html
from .drawing import GRID, INK, LINES, MUTED, escaped, svg_attributes, svg_document, svg_text, whole_pixels
from .figure import font_families, need_matplotlib, new_figure, save_figure, set_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# ---------------------------------------------------------------- BLEU by source length

Bucket = Mapping[str, Any]  # "from", "to" in source words (None: open), "pairs", "bleu": the by_length of `evaluate`


def check_curves(what: str, curves: Mapping[str, Sequence[Bucket]]) -> list[str]:
    """The names of the buckets, "1-4" or "13+", which all curves must share; a bucket without BLEU is an error."""
    if not curves or not all(curves.values()):
        raise ValueError(f"{what}: expected at least one model with at least one length bucket, got {dict(curves)!r}")
    names = [[bucket_name(b) for b in buckets] for buckets in curves.values()]
    for model, own in zip(curves, names, strict=True):
        if own != names[0]:
            raise ValueError(f"{what}: {model!r} has the buckets {own}, expected {names[0]} as the first model")
        for bucket in curves[model]:
            if bucket.get("bleu") is None:
                raise ValueError(f"{what}: {model!r} has no BLEU in bucket {bucket_name(bucket)}, expected a number")
    return names[0]


def bucket_name(bucket: Bucket) -> str:
    low, high = bucket["from"], bucket["to"]
    return f"{low}+" if high is None else f"{low}" if low == high else f"{low}–{high}"


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Places for labels as near as possible to `heights`, at least `gap` apart (downward), in the given order."""
    order = sorted(range(len(heights)), key=lambda i: -heights[i])
    places = list(heights)
    for upper, lower in pairwise(order):
        places[lower] = min(places[lower], places[upper] - gap)
    return places


def bleu_by_length_svg(curves: Mapping[str, Sequence[Bucket]], *, title: str | None = None) -> str:
    """BLEU (y, 0..100) against source words (x) of one or more models, as the text of an SVG file."""
    names = check_curves("bleu_by_length_svg", curves)
    left, top, wide, high = 56.0, 56.0, 470.0, 250.0
    step = wide / len(names)

    def x(i: int) -> float:
        return left + (i + 0.5) * step

    def y(bleu: float) -> float:
        return top + high * (1 - min(max(bleu, 0.0), 100.0) / 100)

    body = [svg_text(left - 34, 24, title or "BLEU by length of the source sentence", font_weight="600")]
    for tick in range(0, 101, 20):
        body.append(f"<line {svg_attributes(x1=left, x2=left + wide, y1=y(tick), y2=y(tick), stroke=GRID)}/>")
        body.append(svg_text(left - 8, y(tick) + 4.5, str(tick), text_anchor="end", font_size=12, fill=MUTED))
    for i, name in enumerate(names):
        body.append(svg_text(x(i), top + high + 20, name, text_anchor="middle", font_size=13, fill=MUTED))
    body.append(
        svg_text(left + wide / 2, top + high + 42, "source words", text_anchor="middle", font_size=13, fill=MUTED)
    )
    ends = spread([float(buckets[-1]["bleu"]) for buckets in curves.values()], gap=9)
    for k, (model, buckets) in enumerate(curves.items()):
        stroke = LINES[k % len(LINES)]
        points = " ".join(f"{x(i):.1f},{y(float(b['bleu'])):.1f}" for i, b in enumerate(buckets))
        line = svg_attributes(points=points, fill="none", stroke=stroke, stroke_width=2.5, stroke_linejoin="round")
        body.append(f"<polyline {line}/>")
        for i, b in enumerate(buckets):
            tip = f"{model}, {names[i]} words: BLEU {float(b['bleu']):.1f}, {b.get('pairs', '?')} pairs"
            dot = svg_attributes(cx=round(x(i), 1), cy=round(y(float(b["bleu"])), 1), r=4, fill=stroke)
            body.append(f"<circle {dot}><title>{escaped(tip)}</title></circle>")
        words = f"{model} {float(buckets[-1]['bleu']):.1f}"
        body.append(svg_text(x(len(names) - 1) + 12, y(ends[k]) + 5, words, fill=stroke, font_weight="600"))
    reach = x(len(names) - 1) + 24 + max(whole_pixels(f"{model} 100.0") for model in curves)
    return svg_document(max(left + wide + 12, reach), top + high + 56, body, title or "BLEU by source length")


def save_bleu_by_length(
    path: str | os.PathLike[str], curves: Mapping[str, Sequence[Bucket]], *, title: str | None = None
) -> None:
    """Write BLEU against source words of one or more models to `path` (.svg, .png or .pdf)."""
    save_figure(path, lambda: bleu_by_length_svg(curves, title=title), lambda: bleu_by_length(curves, title=title))


def bleu_by_length(curves: Mapping[str, Sequence[Bucket]], *, title: str | None = None) -> Figure:
    """BLEU against source words as a matplotlib Figure: Bahdanau et al. 2014, figure 2.

    curves: model name -> the `by_length` list of `dhyan evaluate --json`; all models share the buckets.
    """
    names = check_curves("bleu_by_length", curves)
    need_matplotlib()
    families, missing = font_families(frozenset("".join([*curves, title or ""])))
    width = 4.55 + 0.1 * max(len(model) + 5 for model in curves)  # the names stand at the ends of their curves
    figure = new_figure(width, 3.9)
    axes = figure.add_axes((0.58 / width, 0.16, 4.4 / width, 0.7))
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=10, labelcolor=MUTED)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("source words", fontsize=10, color=MUTED)
    ends = spread([float(buckets[-1]["bleu"]) for buckets in curves.values()], gap=8)
    for k, (model, buckets) in enumerate(curves.items()):
        shade = LINES[k % len(LINES)]
        values = [float(b["bleu"]) for b in buckets]
        axes.plot(range(len(names)), values, "o-", color=shade, linewidth=2.2, markersize=6, clip_on=False)
        axes.text(
            len(names) - 0.85,
            ends[k],
            f"{model} {values[-1]:.1f}",
            color=shade,
            weight="bold",
            va="center",
            fontsize=11,
        )
    heading = title or "BLEU by length of the source sentence"
    figure.text(0.19 / width, 0.95, heading, va="top", fontsize=12, weight="bold", color=INK)
    return set_fonts(figure, families, missing)


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
