"""Pictures of what a model attends to: heat-maps and BLEU by sentence length.

A heat-map follows Bahdanau et al. 2014, figure 3: source tokens along the top, target tokens down the side.
SVG files come from dhyan's own writer and need no extra. PNG and PDF files and `Figure` objects need matplotlib,
`pip install 'dhyan[plot]'`.
"""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .svg import (
    GRID,
    INK,
    LINES,
    MUTED,
    STOPS,
    Bucket,
    bleu_by_length_svg,
    cell_width,
    check,
    check_curves,
    heatmap_svg,
    hex_colour,
    ink_on,
    label,
    number,
    spread,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = " ░▒▓█"
# Families that hold Devanagari, in order of preference; any other installed font that has the letters serves too.
FAMILIES = (
    "Noto Sans", "Noto Sans Devanagari", "Nirmala UI", "Kohinoor Devanagari", "Lohit Devanagari", "Mangal",
    "Devanagari Sangam MN", "Mukta", "Noto Serif Devanagari", "FreeSans", "Arial Unicode MS",
)  # fmt: skip


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
    _save(
        path,
        lambda: heatmap_svg(weights, source_tokens, target_tokens, title=title),
        lambda: heatmap(weights, source_tokens, target_tokens, title=title),
    )


def save_bleu_by_length(
    path: str | os.PathLike[str], curves: Mapping[str, Sequence[Bucket]], *, title: str | None = None
) -> None:
    """Write BLEU against source words of one or more models to `path` (.svg, .png or .pdf)."""
    _save(path, lambda: bleu_by_length_svg(curves, title=title), lambda: bleu_by_length(curves, title=title))


def _save(path: str | os.PathLike[str], as_svg: Callable[[], str], as_figure: Callable[[], Figure]) -> None:
    suffix = Path(path).suffix.lower()
    if suffix == ".svg":
        Path(path).write_text(as_svg(), encoding="utf-8")
    elif suffix in (".png", ".pdf"):
        as_figure().savefig(path, dpi=160)
    else:
        raise ValueError(f"{os.fspath(path)}: suffix {suffix!r}, expected .svg, .png or .pdf")


# ---------------------------------------------------------------- matplotlib


def heatmap(
    weights: Any, source_tokens: Sequence[str], target_tokens: Sequence[str], *, title: str | None = None
) -> Figure:
    """The heat-map of weights (T, S) as a matplotlib Figure; (heads, T, S) shows the mean.

    ValueError: shapes that disagree with the tokens, NaN. ImportError: matplotlib is not installed.
    """
    array = check("heatmap", weights, source_tokens, target_tokens)
    sources, targets = [label(t) for t in source_tokens], [label(t) for t in target_tokens]
    _need_matplotlib()
    families, missing = _families(frozenset("".join([*sources, *targets, title or ""])))

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
    figure = _figure(margin + max(width, reach, 1.25 * inches(title or "")) + 0.2, height + head + 0.15)
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
    return _set_fonts(figure, families, missing)


def bleu_by_length(curves: Mapping[str, Sequence[Bucket]], *, title: str | None = None) -> Figure:
    """BLEU against source words as a matplotlib Figure: Bahdanau et al. 2014, figure 2.

    curves: model name -> the `by_length` list of `dhyan evaluate --json`; all models share the buckets.
    """
    names = check_curves("bleu_by_length", curves)
    _need_matplotlib()
    families, missing = _families(frozenset("".join([*curves, title or ""])))
    width = 4.55 + 0.1 * max(len(model) + 5 for model in curves)  # the names stand at the ends of their curves
    figure = _figure(width, 3.9)
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
    return _set_fonts(figure, families, missing)


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("PNG and PDF pictures need matplotlib: pip install 'dhyan[plot]'") from error


def _figure(width: float, height: float) -> Figure:
    """An empty Figure, sizes in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A Figure that never warns about glyphs that no font has: that was said once, in one line."""

        def draw(self, renderer: Any) -> None:
            with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r"(Glyph|Matplotlib currently does not support)")
                super().draw(renderer)

    return Picture(figsize=(width, height))


def _set_fonts(figure: Figure, families: tuple[str, ...], missing: frozenset[str]) -> Figure:
    """Give every text of the figure these families; say once what no installed font has."""
    from matplotlib import ft2font
    from matplotlib.text import Text

    words = ""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(list(families))
        if len(families) > 1:
            text.set_fontweight("normal")  # the families found are regular; looking for bold ones would log a complaint
        words += text.get_text()
    if missing:
        _say_once("no installed font has", f"{''.join(sorted(missing)[:8])}{'...' if len(missing) > 8 else ''}")
    elif any("\u0900" <= c < "\u0e00" for c in words) and not hasattr(ft2font, "__libraqm_version__"):
        _say_once("matplotlib before 3.11 does not shape", "Indic letters")
    return figure


_said: set[str] = set()


def _say_once(problem: str, letters: str) -> None:
    if problem not in _said:
        _said.add(problem)
        advice = (
            "install one, such as fonts-noto-core, or write .svg" if "font" in problem else "update it, or write .svg"
        )
        print(f"dhyan: {problem} {letters}: {advice}", file=sys.stderr)


@cache
def _families(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families that together have the letters, the default first, and the letters that no family has."""
    from matplotlib.font_manager import fontManager

    wanted = {c for c in letters if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf")}
    plain = {f.name: f.fname for f in fontManager.ttflist if f.style == "normal" and str(f.weight) in ("400", "normal")}
    preferred = [name for name in FAMILIES if name in plain]
    others = sorted(name for name in plain if name not in FAMILIES and "Last Resort" not in name)
    families = ["DejaVu Sans"]
    wanted -= _charmap(plain.get("DejaVu Sans"))
    for name in [*preferred, *others]:
        if not wanted:
            break
        found = wanted & _charmap(plain[name])
        if found:
            families.append(name)
            wanted -= found
    return tuple(families), frozenset(wanted)


def _charmap(path: str | None) -> set[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return {chr(code) for code in FT2Font(path).get_charmap()} if path else set()
    except (OSError, RuntimeError):  # a broken font file is a font without letters
        return set()


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
