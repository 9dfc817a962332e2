"""The look of dhyan's pictures, and a small SVG writer without dependencies.

Every label is an SVG `<text>`, so the viewer's own fonts shape Devanagari and the core install can draw. Everything
that comes from data is escaped; no script, no remote resource.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

# One hue, from almost white to dark blue; equal steps in lightness.
STOPS = ((244, 247, 252), (189, 211, 238), (111, 160, 216), (47, 104, 180), (16, 50, 112))
INK, MUTED, GRID = "#1b2330", "#5c6675", "#e4e8ee"
LINES = ("#1f4e9c", "#8fa9cf", "#4a77bf", "#b9c8de")  # one hue again: the first curve is the strongest
SVG_FONTS = (
    "'Noto Sans','Noto Sans Devanagari','Nirmala UI','Kohinoor Devanagari','Lohit Devanagari',"
    "'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
)
CELL, FONT = 46, 15  # pixels
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # of Unicode's bidirectional classes


# ---------------------------------------------------------------- what all pictures share


def colour(weight: float) -> tuple[int, int, int]:
    """Red, green and blue (0..255) of a weight; below 0 counts as 0, above 1 as 1."""
    position = min(max(float(weight), 0.0), 1.0) * (len(STOPS) - 1)
    low = min(int(position), len(STOPS) - 2)
    part = position - low
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(STOPS[low], STOPS[low + 1], strict=True))
    return red, green, blue


def hex_colour(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def label(token: str) -> str:
    """A token as it can be shown alone: a bare combining mark sits on a dotted circle, white space becomes visible, and
    what would turn the text around it, or is no text, a replacement character.
    """
    if not token:
        return "∅"
    visible = {" ": "␣", "\t": "⇥", "\n": "⏎", "\r": "⏎"}
    shown = "".join(visible.get(c, "\ufffd" if _bends(c) else c) for c in token)
    return "◌" + shown if unicodedata.category(shown[0])[0] == "M" else shown


def _bends(c: str) -> bool:
    """A control, a surrogate, or an embedding, override or isolate of text direction."""
    return unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in DIRECTIONS


def check(what: str, weights: Any, source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Weights (T, S), or (heads, T, S) of which the mean is shown, as a float64 array."""
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim == 3 and len(array):
        array = array.mean(axis=0)
    if array.shape != (len(target), len(source)):
        raise ValueError(
            f"{what}: weights have shape {np.shape(weights)}, expected (T={len(target)}, S={len(source)}) to match "
            f"{len(target)} target and {len(source)} source tokens"
        )
    if not array.size:
        raise ValueError(f"{what}: weights have shape {array.shape}, nothing to draw")
    if not np.isfinite(array).all():
        t, s = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{what}: weights[{t}, {s}] is {array[t, s]}, expected finite numbers")
    return array


def number(weight: float) -> str:
    """A weight inside its cell: two decimals without the leading zero, nothing for what is nearly nothing."""
    if weight < 0.05:
        return ""
    return f"{weight:.2f}".removeprefix("0")


def ink_on(weight: float) -> str:
    return "#ffffff" if weight > 0.45 else INK


def cell_width(text: str) -> int:
    """Columns that `text` takes in a terminal, as wcwidth counts: non-spacing marks 0, East Asian wide 2, others 1."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


# ---------------------------------------------------------------- SVG, without matplotlib


def _text(x: float, y: float, words: str, **attributes: object) -> str:
    """One `<text>`; attribute names use _ for -, everything is escaped."""
    return f"<text {_attributes(x=round(x, 1), y=round(y, 1), **attributes)}>{_escape(words)}</text>"


def _attributes(**attributes: object) -> str:
    return " ".join(f'{k.replace("_", "-")}="{_escape(str(v))}"' for k, v in attributes.items())


def _escape(words: str) -> str:
    """Escaped for XML 1.0, which also forbids most control characters and lone surrogates."""
    allowed = "".join(c if c in "\t\n\r" or (c >= " " and unicodedata.category(c) != "Cs") else "\ufffd" for c in words)
    return escape(allowed.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd"))


def _svg(width: float, height: float, body: list[str], title: str) -> str:
    size = f"{math.ceil(width)} {math.ceil(height)}"
    w, h = size.split()
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {size}" role="img" '
        f'font-family="{_escape(SVG_FONTS)}" font-size="{FONT}" fill="{INK}">'
    )
    return "\n".join(
        [
            head,
            f"<title>{_escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def _pixels(words: str) -> float:
    return 0.6 * FONT * cell_width(words)


def heatmap_svg(
    weights: Any, source_tokens: Sequence[str], target_tokens: Sequence[str], *, title: str | None = None
) -> str:
    """The heat-map of weights (T, S) as the text of an SVG file; each cell says its weight when pointed at."""
    array = check("heatmap_svg", weights, source_tokens, target_tokens)
    sources, targets = [label(t) for t in source_tokens], [label(t) for t in target_tokens]
    widest = max(map(_pixels, sources))
    cell = CELL if max(array.shape) <= 24 else 26
    slanted = widest > 1.9 * cell  # a wide label may widen its column a little; beyond that all labels are slanted
    column = cell if slanted else max(cell, widest + 10)
    left = max(map(_pixels, targets)) + 22
    top = (30 if title else 8) + (0.72 * widest + 22 if slanted else 28)
    body = []
    if title:
        body.append(_text(left, 20, title, font_weight="600"))
    for s, word in enumerate(sources):
        x, y = left + (s + 0.5) * column, top - 10
        if slanted:
            body.append(_text(x, y, word, transform=f"rotate(-45 {x:.1f} {y:.1f})"))
        else:
            body.append(_text(x, y, word, text_anchor="middle"))
    for t, word in enumerate(targets):
        body.append(_text(left - 10, top + (t + 0.5) * cell + 5, word, text_anchor="end"))
        for s, source in enumerate(sources):
            body.append(_cell(left + s * column, top + t * cell, column, cell, array[t, s], source, word))
    width = left + len(sources) * column + 16
    if slanted:
        width = max(width, *(left + (s + 0.7) * column + 0.72 * _pixels(word) for s, word in enumerate(sources)))
    width = max(width, left + _pixels(title or "") + 8)
    return _svg(width, top + len(targets) * cell + 14, body, title or "attention weights")


def _cell(x: float, y: float, width: float, height: float, weight: float, source: str, target: str) -> str:
    box = _attributes(
        x=round(x + 1, 1), y=round(y + 1, 1), width=round(width - 2, 1), height=round(height - 2, 1), rx=2,
        fill=hex_colour(colour(weight)),
    )  # fmt: skip
    tip = f"<title>{_escape(f'{target} ← {source}: {weight:.3f}')}</title>"
    figure = number(weight) if height == CELL else ""
    shown = figure and _text(
        x + width / 2, y + height / 2 + 4.5, figure, font_size=13, text_anchor="middle", fill=ink_on(weight)
    )
    return f"<g>{tip}<rect {box}/>{shown}</g>"


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

    body = [_text(left - 34, 24, title or "BLEU by length of the source sentence", font_weight="600")]
    for tick in range(0, 101, 20):
        body.append(f"<line {_attributes(x1=left, x2=left + wide, y1=y(tick), y2=y(tick), stroke=GRID)}/>")
        body.append(_text(left - 8, y(tick) + 4.5, str(tick), text_anchor="end", font_size=12, fill=MUTED))
    for i, name in enumerate(names):
        body.append(_text(x(i), top + high + 20, name, text_anchor="middle", font_size=13, fill=MUTED))
    body.append(_text(left + wide / 2, top + high + 42, "source words", text_anchor="middle", font_size=13, fill=MUTED))
    ends = spread([float(buckets[-1]["bleu"]) for buckets in curves.values()], gap=9)
    for k, (model, buckets) in enumerate(curves.items()):
        stroke = LINES[k % len(LINES)]
        points = " ".join(f"{x(i):.1f},{y(float(b['bleu'])):.1f}" for i, b in enumerate(buckets))
        line = _attributes(points=points, fill="none", stroke=stroke, stroke_width=2.5, stroke_linejoin="round")
        body.append(f"<polyline {line}/>")
        for i, b in enumerate(buckets):
            tip = f"{model}, {names[i]} words: BLEU {float(b['bleu']):.1f}, {b.get('pairs', '?')} pairs"
            dot = _attributes(cx=round(x(i), 1), cy=round(y(float(b["bleu"])), 1), r=4, fill=stroke)
            body.append(f"<circle {dot}><title>{_escape(tip)}</title></circle>")
        words = f"{model} {float(buckets[-1]['bleu']):.1f}"
        body.append(_text(x(len(names) - 1) + 12, y(ends[k]) + 5, words, fill=stroke, font_weight="600"))
    reach = x(len(names) - 1) + 24 + max(_pixels(f"{model} 100.0") for model in curves)
    return _svg(max(left + wide + 12, reach), top + high + 56, body, title or "BLEU by source length")
