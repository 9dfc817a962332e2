"""Heat-maps of attention weights: SVG, matplotlib figures, and blocks for terminals.

A heat-map follows Bahdanau et al. 2014, figure 3: source tokens along the top, target tokens down the side.
SVG files come from dhyan's own writer and need no extra. PNG and PDF files and `Figure` objects need matplotlib,
`pip install 'dhyan[plot]'`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import (
    CELL,
    INK,
    STOPS,
    cell_width,
    check,
    colour,
    escaped,
    hex_colour,
    ink_on,
    label,
    number,
    svg_attributes,
    svg_document,
    svg_text,
    whole_pixels,
)
from .figure import SHADES, font_families, need_matplotlib, new_figure, save_figure, set_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# ---------------------------------------------------------------- files


def save_heatmap(
    path: str | os.PathLike[str],
    weights: Any,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    title: str | None = None,
) -> None:
    """Write the heat-map of weights (T, S) to `path`; the suffix .svg, .png or .pdf chooses the format."""
    save_figure(
        path,
        lambda: heatmap_svg(weights, source_tokens, target_tokens, title=title),
        lambda: heatmap(weights, source_tokens, target_tokens, title=title),
    )


# ---------------------------------------------------------------- matplotlib


def heatmap(
    weights: Any, source_tokens: Sequence[str], target_tokens: Sequence[str], *, title: str | None = None
) -> Figure:
    """The heat-map of weights (T, S) as a matplotlib Figure; (heads, T, S) shows the mean.

    ValueError: shapes that disagree with the tokens, NaN. ImportError: matplotlib is not installed.
    """
    array = check("heatmap", weights, source_tokens, target_tokens)
    sources, targets = [label(t) for t in source_tokens], [label(t) for t in target_tokens]
    need_matplotlib()
    families, missing = font_families(frozenset("".join([*sources, *targets, title or ""])))

    def inches(word: str) -> float:  # a letter that no font has is drawn as a wide box
        return 0.1 * cell_width(word) + sum(0.2 for c in word if c in missing)

    numbers = max(array.shape) <= 24
    cell = 0.48 if numbers else 0.27
    widths = [inches(s) for s in sources]
    slanted = max(widths) > 1.9 * cell
    column = cell if slanted else max(cell, max(widths) + 0.1)
    width, height = len(sources) * column, len(targets) * cell
    margin = max(map(inches, targets)) + 0.3
    head = (0.75 * max(widths) if slanted else 0) + 0.45 + (0.35 if title else 0)
    reach = max((s + 0.6) * column + 0.75 * w for s, w in enumerate(widths)) if slanted else width
    figure = new_figure(margin + max(width, reach, 1.25 * inches(title or "")) + 0.2, height + head + 0.15)
    axes = figure.add_axes((0, 0, 1, 1))
    box = (
        margin / figure.get_figwidth(),
        0.15 / figure.get_figheight(),
        width / figure.get_figwidth(),
        height / figure.get_figheight(),
    )
    axes.set_position(box)
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("dhyan", [hex_colour(stop) for stop in STOPS])
    axes.pcolormesh(array, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    axes.set_xlim(0, len(sources))
    axes.set_ylim(len(targets), 0)
    turn: dict[str, Any] = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(np.arange(len(sources)) + 0.5, sources, **turn)
    axes.set_yticks(np.arange(len(targets)) + 0.5, targets)
    axes.tick_params(length=0, labelsize=11, labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if numbers:
        for (t, s), weight in np.ndenumerate(array):
            axes.text(s + 0.5, t + 0.5, number(weight), ha="center", va="center", fontsize=9, color=ink_on(weight))
    if title:
        figure.text(box[0], 1 - 0.12 / figure.get_figheight(), title, va="top", fontsize=12, weight="bold", color=INK)
    return set_fonts(figure, families, missing)


# ---------------------------------------------------------------- the terminal


def terminal_heatmap(
    weights: Any,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    width: int | None = None,
    color: bool | None = None,
) -> str:
    """The heat-map of weights (T, S) as lines of text: source tokens are the columns, target tokens the rows.

    Shades ` ░▒▓█` stand for weights near 0, 1/4, 1/2, 3/4 and 1, so it reads without colour too. Columns that do not
    fit `width` (default: the terminal's) go on in a further block below. `color`: None = only on a colour terminal.
    """
    array = check("terminal_heatmap", weights, source_tokens, target_tokens)
    console = _console()
    width = console.width if width is None else width
    if width < 1:
        raise ValueError(f"terminal_heatmap: width is {width}, expected at least 1")
    color = bool(console.is_terminal and console.color_system) if color is None else color
    sources, targets = [label(t) for t in source_tokens], [label(t) for t in target_tokens]
    margin = min(max(map(cell_width, targets)), max(width // 2, 4))
    room = max(width - margin - 1, 3)
    columns = [min(max(cell_width(s), 3), room) for s in sources]
    blocks, first = [], 0
    while first < len(sources):
        last, used = first, 0
        while last < len(sources) and (last == first or used + columns[last] + 1 <= room):
            used += columns[last] + 1
            last += 1
        blocks.append(_terminal_block(array, sources, targets, range(first, last), columns, margin, color))
        first = last
    return "\n\n".join(blocks)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _terminal_block(
    array: np.ndarray, sources: list[str], targets: list[str], span: range, columns: list[int], margin: int, color: bool
) -> str:
    # On a terminal each heading is placed by column number: terminals disagree on the width of Devanagari vowel signs.
    heading, column = " " * margin, margin + 1
    for s in span:
        heading += (f"\x1b[{column + 1}G" if color else " ") + _fit(sources[s], columns[s])
        column += columns[s] + 1
    lines = [heading if color else heading.rstrip()]
    for t, word in enumerate(targets):
        cells = " ".join(_shade(array[t, s], columns[s], color) for s in span)
        lines.append(f"{_fit(word, margin, right=True)} {cells}".rstrip())
    return "\n".join(lines)


def _fit(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly `width` columns: padded, or cut with an ellipsis between characters, never inside one."""
    if cell_width(text) > width:
        kept = ""
        for c in text:
            if cell_width(kept + c) > width - 1:
                break
            kept += c
        text = kept + "…"
    pad = " " * (width - cell_width(text))
    return pad + text if right else text + pad


def _shade(weight: float, width: int, color: bool) -> str:
    shade = SHADES[min(max(int(weight * 4 + 0.5), 0), 4)]
    if shade == " ":
        shade = "·" if weight > 0.02 else " "
        cell = shade.center(width)
    else:
        cell = shade * width
    if not color:
        return cell
    from rich.color import ColorSystem
    from rich.style import Style

    # One blue for every shade: the block characters mix it with the background, be that light or dark.
    return Style(color="#3f7fd6").render(cell, color_system=ColorSystem.TRUECOLOR)


def heatmap_svg(
    weights: Any, source_tokens: Sequence[str], target_tokens: Sequence[str], *, title: str | None = None
) -> str:
    """The heat-map of weights (T, S) as the text of an SVG file; each cell says its weight when pointed at."""
    array = check("heatmap_svg", weights, source_tokens, target_tokens)
    sources, targets = [label(t) for t in source_tokens], [label(t) for t in target_tokens]
    widest = max(map(whole_pixels, sources))
    cell = CELL if max(array.shape) <= 24 else 26
    slanted = widest > 1.9 * cell  # a wide label may widen its column a little; beyond that all labels are slanted
    column = cell if slanted else max(cell, widest + 10)
    left = max(map(whole_pixels, targets)) + 22
    top = (30 if title else 8) + (0.72 * widest + 22 if slanted else 28)
    body = []
    if title:
        body.append(svg_text(left, 20, title, font_weight="600"))
    for s, word in enumerate(sources):
        x, y = left + (s + 0.5) * column, top - 10
        if slanted:
            body.append(svg_text(x, y, word, transform=f"rotate(-45 {x:.1f} {y:.1f})"))
        else:
            body.append(svg_text(x, y, word, text_anchor="middle"))
    for t, word in enumerate(targets):
        body.append(svg_text(left - 10, top + (t + 0.5) * cell + 5, word, text_anchor="end"))
        for s, source in enumerate(sources):
            body.append(_cell(left + s * column, top + t * cell, column, cell, array[t, s], source, word))
    width = left + len(sources) * column + 16
    if slanted:
        width = max(width, *(left + (s + 0.7) * column + 0.72 * whole_pixels(word) for s, word in enumerate(sources)))
    width = max(width, left + whole_pixels(title or "") + 8)
    return svg_document(width, top + len(targets) * cell + 14, body, title or "attention weights")


def _cell(x: float, y: float, width: float, height: float, weight: float, source: str, target: str) -> str:
    box = svg_attributes(
        x=round(x + 1, 1), y=round(y + 1, 1), width=round(width - 2, 1), height=round(height - 2, 1), rx=2,
        fill=hex_colour(colour(weight)),
    )  # fmt: skip
    tip = f"<title>{escaped(f'{target} ← {source}: {weight:.3f}')}</title>"
    figure = number(weight) if height == CELL else ""
    shown = figure and svg_text(
        x + width / 2, y + height / 2 + 4.5, figure, font_size=13, text_anchor="middle", fill=ink_on(weight)
    )
    return f"<g>{tip}<rect {box}/>{shown}</g>"
