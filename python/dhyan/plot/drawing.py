"""The look of dhyan's pictures, and a small SVG writer without dependencies.

Every label is an SVG `<text>`, so the viewer's own fonts shape Devanagari and the core install can draw. Everything
that comes from data is escaped; no script, no remote resource.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from html import escape
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


def svg_text(x: float, y: float, words: str, **attributes: object) -> str:
    """One `<text>`; attribute names use _ for -, everything is escaped."""
    return f"<text {svg_attributes(x=round(x, 1), y=round(y, 1), **attributes)}>{escaped(words)}</text>"


def svg_attributes(**attributes: object) -> str:
    return " ".join(f'{k.replace("_", "-")}="{escaped(str(v))}"' for k, v in attributes.items())


def escaped(text: str) -> str:
    """Text for an element or a quoted attribute; characters that HTML or XML 1.0 forbids become U+FFFD."""
    return escape("".join(c if _is_allowed(c) else "\ufffd" for c in text))


def _is_allowed(c: str) -> bool:
    return c in "\t\n" or (unicodedata.category(c) not in ("Cc", "Cs") and ord(c) & 0xFFFE != 0xFFFE)


def svg_document(width: float, height: float, body: list[str], title: str) -> str:
    size = f"{math.ceil(width)} {math.ceil(height)}"
    w, h = size.split()
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {size}" role="img" '
        f'font-family="{escaped(SVG_FONTS)}" font-size="{FONT}" fill="{INK}">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escaped(title)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def whole_pixels(words: str) -> float:
    return 0.6 * FONT * cell_width(words)
