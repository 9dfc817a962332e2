"""What matplotlib's figures share: a figure with the fonts that its labels need, and saving by suffix."""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = " ░▒▓█"
# Families that hold Devanagari, in order of preference; any other installed font that has the letters serves too.
FAMILIES = (
    "Noto Sans", "Noto Sans Devanagari", "Nirmala UI", "Kohinoor Devanagari", "Lohit Devanagari", "Mangal",
    "Devanagari Sangam MN", "Mukta", "Noto Serif Devanagari", "FreeSans", "Arial Unicode MS",
)  # fmt: skip


def save_figure(path: str | os.PathLike[str], as_svg: Callable[[], str], as_figure: Callable[[], Figure]) -> None:
    suffix = Path(path).suffix.lower()
    if suffix == ".svg":
        Path(path).write_text(as_svg(), encoding="utf-8")
    elif suffix in (".png", ".pdf"):
        as_figure().savefig(path, dpi=160)
    else:
        raise ValueError(f"{os.fspath(path)}: suffix {suffix!r}, expected .svg, .png or .pdf")


def need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("PNG and PDF pictures need matplotlib: pip install 'dhyan[plot]'") from error


def new_figure(width: float, height: float) -> Figure:
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


def set_fonts(figure: Figure, families: tuple[str, ...], missing: frozenset[str]) -> Figure:
    """Give every text of the figure these families; say once what no installed font has."""
    from matplotlib import ft2font
    from matplotlib.text import Text

    words = ""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)  # "$" and "\\" are letters of a token
        text.set_fontfamily(list(families))
        if len(families) > 1:
            text.set_fontweight("normal")  # the families found are regular; looking for bold ones would log a complaint
        words += text.get_text()
    if missing:
        shown = f"{''.join(sorted(missing)[:8])}{'...' if len(missing) > 8 else ''}"
        _say_once("no installed font has", shown, {unicodedata.name(c, "").split(" ")[0] for c in missing})
    elif any("\u0900" <= c < "\u0e00" for c in words) and not hasattr(ft2font, "__libraqm_version__"):
        _say_once("matplotlib before 3.11 does not shape", "Indic letters", {"Indic"})
    return figure


_said: set[tuple[str, str]] = set()


def _say_once(problem: str, letters: str, scripts: set[str]) -> None:
    """One line on standard error, unless the same was said of all these scripts."""
    if not {(problem, script) for script in scripts} <= _said:
        _said.update((problem, script) for script in scripts)
        advice = (
            "install one, such as fonts-noto-core, or write .svg" if "font" in problem else "update it, or write .svg"
        )
        print(f"dhyan: {problem} {letters}: {advice}", file=sys.stderr)


def font_families(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families that together have the letters, the default first, and the letters that no family has.

    matplotlib keeps its list of fonts in a file; where letters are missing, those installed since are added to it.
    """
    families, missing = _families_of(letters)
    return _families_of(letters) if missing and _add_new_fonts() else (families, missing)


def _add_new_fonts() -> bool:
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    found = [path for path in findSystemFonts() if path not in known and path not in _unreadable]
    for path in found:
        try:
            fontManager.addfont(path)
        except Exception:  # whatever a broken font file raises: it is a font without letters, and not tried again
            _unreadable.add(path)
    return any(path not in _unreadable for path in found)


_unreadable: set[str] = set()


def _families_of(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
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


@cache
def _charmap(path: str | None) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(chr(code) for code in FT2Font(path).get_charmap()) if path else frozenset()
    except (OSError, RuntimeError):  # a broken font file is a font without letters
        return frozenset()
