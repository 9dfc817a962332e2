"""One translation as an evidence card: HTML from plain tokens and weights, for the report and for notebooks.

Every text is escaped, no style or script stands in an attribute, and nothing is fetched, so that a page can forbid it
all (`page_html`). Without its script a card is its texts and a heat-map that is a table; the script adds the slider
through the decoding steps and the lights under the pointer.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Any

import numpy as np

from .drawing import escaped, label

LEVELS = 10  # shades of a weight: classes w0 to w10
MOST_CELLS = 1600  # a larger matrix is drawn without numbers, and its table holds the largest weights of each row
LARGEST = 5
# The language most often written in a script, for screen readers and fonts; only a guess, and none for Latin letters.
LANGUAGES = {
    "DEVANAGARI": "hi", "BENGALI": "bn", "GURMUKHI": "pa", "GUJARATI": "gu", "TAMIL": "ta", "TELUGU": "te",
    "KANNADA": "kn", "MALAYALAM": "ml", "SINHALA": "si", "ARABIC": "ar", "HEBREW": "he", "GREEK": "el",
    "CYRILLIC": "ru", "ARMENIAN": "hy", "GEORGIAN": "ka", "THAI": "th", "HANGUL": "ko", "HIRAGANA": "ja",
    "KATAKANA": "ja", "CJK": "zh",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card shows. weights (T, S) of tokens (T) over source_tokens (S).

    texts: (name, text) of the user's data, top to bottom. chips: (kind, words), kind "" or "warn" or "good".
    notes: (name, sentence) below the heat-map.
    """

    title: str
    tokens: Sequence[str]
    source_tokens: Sequence[str]
    weights: np.ndarray
    texts: Sequence[tuple[str, str]] = ()
    chips: Sequence[tuple[str, str]] = ()
    notes: Sequence[tuple[str, str]] = ()


# ---------------------------------------------------------------- text


def language(text: str) -> str:
    """The `lang` of a text by the script of most of its letters; "" (unknown) where that says nothing."""
    scripts: dict[str, int] = {}
    for c in text[:1000]:
        if c.isalpha():
            script = unicodedata.name(c, "").split(" ")[0].split("-")[0]
            scripts[script] = scripts.get(script, 0) + 1
    return LANGUAGES.get(max(scripts, key=lambda s: scripts[s]), "") if scripts else ""


def weight_text(weight: float) -> str:
    """A weight in three characters, such as .07 and 1.0, or 0 for what rounds to it."""
    if weight < 0.005:
        return "0"
    return f"{weight:.2f}".removeprefix("0") if weight < 0.995 else f"{weight:.1f}"


def _cell_text(weight: float) -> str:
    """The same in a cell of a heat-map, where what rounds to 0 is blank: zeros in most cells hide the others."""
    return "" if weight < 0.005 else weight_text(weight)


def level(weight: float) -> int:
    """The shade of a weight, 0 to LEVELS; halves go up, as in card.js."""
    return int(LEVELS * min(max(float(weight), 0.0), 1.0) + 0.5)


def reading_note(
    links: Sequence[tuple[int, int]], tokens: Sequence[str], source_tokens: Sequence[str], weights: np.ndarray
) -> str:
    """How an output was read, in a sentence or two. links: (source, target) of the largest weights."""
    if not links:
        return "No output token looks at a source token more than at the end symbol."
    crossed = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(links, 2))
    pairs = len(links) * (len(links) - 1) // 2
    order = f"{crossed} of {pairs} pairs of links cross" if crossed else "in the order of the source"
    read, totals = len({s for s, _ in links}), weights.sum(axis=0)
    most = ", ".join(f"{source_tokens[s]} {totals[s]:.2f}" for s in np.argsort(-totals, kind="stable")[:3])
    return (
        f"{len(links)} of {len(tokens)} output tokens point to {read} of {len(source_tokens) - 1} source tokens, "
        f"{order}. Most weight in total: {most}."
    )


# ---------------------------------------------------------------- a card


def card_html(card: Card, *, heading: int = 3, identifier: str = "") -> str:
    """The card as an <article>; heading: the level of its title. ValueError where weights do not fit the tokens."""
    T, S = len(card.tokens), len(card.source_tokens)
    weights = np.asarray(card.weights, dtype=np.float64).round(3)  # once, so that table and script agree
    if weights.shape != (T, S) or not np.isfinite(weights).all():
        raise ValueError(f"card: weights have shape {weights.shape}, expected finite ones of shape (T={T}, S={S})")
    parts = [
        f"<header><h{heading}>{escaped(card.title)}</h{heading}>{_chips(card.chips)}</header>",
        _pairs(card.texts, "texts", mark_language=True),
    ]
    if T and S:
        parts += [_player(card), _heatmap(card, weights)]
    else:
        parts.append("<p>The output is empty: there are no weights to show.</p>")
    parts.append(_pairs(card.notes, "notes"))
    own = f' id="{escaped(identifier)}"' if identifier else ""
    rows = escaped(_sparse(weights))
    return (
        f'<article class="dhyan-card"{own} data-weights="{rows}">\n' + "\n".join(filter(None, parts)) + "\n</article>"
    )


def _sparse(weights: np.ndarray) -> str:
    """ "s:w,s:w;..." row by row, w in thousandths, what is below one of them left out."""
    rows = (np.asarray(weights) * 1000).round().astype(int)
    return ";".join(",".join(f"{s}:{row[s]}" for s in np.flatnonzero(row > 0)) for row in rows)


def _chips(chips: Sequence[tuple[str, str]]) -> str:
    if not chips:
        return ""
    items = "".join(f'<li class="{escaped(kind or "plain")}">{escaped(words)}</li>' for kind, words in chips)
    return f'<ul class="chips">{items}</ul>'


def _pairs(pairs: Sequence[tuple[str, str]], name: str, mark_language: bool = False) -> str:
    if not pairs:
        return ""
    rows = ""
    for term, text in pairs:
        marks = f' lang="{language(text)}" dir="auto"' if mark_language else ""
        rows += f"<dt>{escaped(term)}</dt><dd{marks}>{escaped(text) or '∅'}</dd>"
    return f'<dl class="{name}">{rows}</dl>'


def _player(card: Card) -> str:
    """The slider and what it moves; hidden until the script is there to move it."""
    T = len(card.tokens)
    outputs = "".join(
        f'<button type="button" data-t="{t}" tabindex="{0 if t == 0 else -1}">{escaped(label(token))}</button>'
        for t, token in enumerate(card.tokens)
    )
    sources = "".join(
        f'<li data-s="{s}"><span class="token">{escaped(label(token))}</span>'
        '<span class="now"></span><span class="bar"><span></span></span></li>'
        for s, token in enumerate(card.source_tokens)
    )
    return (
        '<div class="player" hidden>\n'
        '<div class="step"><button type="button" class="back" aria-label="one step back">◀</button>'
        f'<label>Step <span class="at">1</span> of {T}<input type="range" min="1" max="{T}" value="1"></label>'
        '<button type="button" class="forth" aria-label="one step on">▶</button></div>\n'
        '<p class="name">Output so far</p>\n<div class="outputs" role="group" aria-label="output tokens" '
        f'lang="{language("".join(card.tokens))}" dir="auto">{outputs}</div>\n'
        f'<p class="name">Source, and the weight on it at this step; bar: total so far</p>\n<ol class="sources" '
        f'aria-label="source tokens" lang="{language("".join(card.source_tokens))}" dir="auto">{sources}</ol>\n'
        '<p class="focus"></p><p class="path"></p>\n</div>'
    )


def _heatmap(card: Card, weights: np.ndarray) -> str:
    if weights.size > MOST_CELLS:
        return _drawing(weights) + _largest(card, weights)
    sources = "".join(
        f'<th scope="col"><span lang="{language(token)}">{escaped(label(token))}</span></th>'
        for token in card.source_tokens
    )
    rows = "".join(
        f'<tr data-t="{t}"><th scope="row"><span lang="{language(token)}">{escaped(label(token))}</span></th>'
        + "".join(f'<td class="w{level(weight)}">{_cell_text(weight)}</td>' for weight in weights[t])
        + "</tr>\n"
        for t, token in enumerate(card.tokens)
    )
    totals = "".join(f"<td>{total:.2f}</td>" for total in np.sum(card.weights, axis=0))
    return _scrolling(
        "attention weights",
        f'<table class="heatmap"><caption>Weights: a row per output token, a column per source token</caption>'
        f"\n<thead><tr><td></td>{sources}</tr></thead>\n<tbody>{rows}</tbody>\n"
        f'<tfoot><tr><th scope="row">total</th>{totals}</tr></tfoot></table>',
    )


def _drawing(weights: np.ndarray) -> str:
    """A large matrix as an SVG without words: one path a shade, so that its size grows with what is not nearly 0."""
    T, S = weights.shape
    shades = (LEVELS * weights.clip(0, 1) + 0.5).astype(int)
    paths = "".join(
        f'<path class="w{k}" d="{"".join(f"M{s} {t}h1v1h-1z" for t, s in np.argwhere(shades == k))}"/>'
        for k in range(1, LEVELS + 1)
        if (shades == k).any()
    )
    words = f"attention weights of {T} output tokens, top to bottom, over {S} source tokens, left to right"
    return f'<svg class="drawing" viewBox="0 0 {S} {T}" role="img" aria-label="{words}">{paths}</svg>\n'


def _largest(card: Card, weights: np.ndarray) -> str:
    rows = []
    for t, token in enumerate(card.tokens):
        best = [s for s in np.argsort(-weights[t], kind="stable")[:LARGEST] if weights[t, s] >= 0.01]
        words = [(level(weights[t, s]), f"{label(card.source_tokens[s])} {weight_text(weights[t, s])}") for s in best]
        cells = "".join(f'<td class="w{shade}">{escaped(text)}</td>' for shade, text in words)
        rows.append(f'<tr data-t="{t}"><th scope="row">{escaped(label(token))}</th>{cells}</tr>')
    caption = f"The {LARGEST} largest weights of each output token"
    return _scrolling(
        "largest attention weights",
        f'<table class="heatmap"><caption>{caption}</caption>\n<tbody>{"".join(rows)}</tbody></table>',
    )


def _scrolling(name: str, table: str) -> str:
    """A box that scrolls by itself, so that a narrow page does not; in the tab order, for those who scroll by keys."""
    return f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">{table}</div>'


# ---------------------------------------------------------------- documents


@cache
def asset(name: str) -> str:
    """A file of this folder: card.css, page.css or card.js."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def fragment_html(card: Card) -> str:
    """A card with its style and script, for a place inside another page, such as a notebook's output."""
    return f"<style>{asset('card.css')}</style>\n{card_html(card)}\n<script>{asset('card.js')}</script>"


def page_html(title: str, body: str) -> str:
    """A whole page whose policy allows its own style and script, by their digests, and nothing else."""
    style, script = asset("card.css") + asset("page.css"), asset("card.js")
    policy = (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def digest(text: str) -> str:
    """How a content security policy names a style or script: by its SHA-256."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def table_html(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escaped(str(word))}</th>' for word in head)
    body = "".join(
        f'<tr><th scope="row">{escaped(str(first))}</th>'
        + "".join(f"<td>{escaped(str(v))}</td>" for v in rest)
        + "</tr>\n"
        for first, *rest in rows
    )
    table = (
        f"<table><caption>{escaped(caption)}</caption>\n<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>"
    )
    return _scrolling(escaped(caption), table)
