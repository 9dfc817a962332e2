"""Pictures: right numbers in the right places, everything escaped, Devanagari legible or one clear line about it."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from dhyan import plot
from dhyan.plot import drawing, figure
from dhyan.plot.curves import bleu_by_length_svg, spread
from dhyan.plot.heatmap import heatmap_svg

SOURCE = ["मैं", "खाना", "खा", "रहा", "हूँ", "</s>"]
TARGET = ["I", "am", "eating"]
WEIGHTS = np.array([[0.9, 0.1, 0, 0, 0, 0], [0, 0, 0, 0.25, 0.75, 0], [0.05, 0.45, 0.5, 0, 0, 0]])
CURVES = {
    "with": [{"from": 3, "to": 8, "pairs": 9, "bleu": 97.0}, {"from": 9, "to": None, "pairs": 9, "bleu": 96.5}],
    "without": [{"from": 3, "to": 8, "pairs": 9, "bleu": 90.0}, {"from": 9, "to": None, "pairs": 9, "bleu": 40.0}],
}
XML = "{http://www.w3.org/2000/svg}"


def texts(document):
    return [element.text or "" for element in ElementTree.fromstring(document).iter(f"{XML}text")]


# ---------------------------------------------------------------- SVG


def test_svg_heatmap_holds_every_token_and_cell():
    document = heatmap_svg(WEIGHTS, SOURCE, TARGET, title="खा → eating")
    found = texts(document)
    assert [text for text in found if text in SOURCE] == SOURCE
    assert [text for text in found if text in TARGET] == TARGET
    assert found[0] == "खा → eating"
    cells = [group for group in ElementTree.fromstring(document).iter(f"{XML}g")]
    assert len(cells) == WEIGHTS.size
    tips = [group.find(f"{XML}title").text for group in cells]
    assert tips[0] == "I ← मैं: 0.900" and tips[-1] == "eating ← </s>: 0.000"
    assert cells[0].find(f"{XML}rect").get("fill") == drawing.hex_colour(drawing.colour(0.9))
    assert cells[0].find(f"{XML}text").text == ".90" and cells[2].find(f"{XML}text") is None


def test_svg_lies_inside_its_frame():
    for source in (SOURCE, ["supercalifragilistic"] * 5 + ["a"]):
        root = ElementTree.fromstring(heatmap_svg(WEIGHTS, source, TARGET, title="a title " * 8))
        width, height = float(root.get("width")), float(root.get("height"))
        for rect in root.iter(f"{XML}rect"):
            if rect.get("width") != "100%":
                assert float(rect.get("x")) >= 0 and float(rect.get("x")) + float(rect.get("width")) <= width
                assert float(rect.get("y")) >= 0 and float(rect.get("y")) + float(rect.get("height")) <= height
        for text in root.iter(f"{XML}text"):
            assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height


@pytest.mark.parametrize("nasty", ["<script>", 'a"b', "&amp;", "\x00\x1b", "\ud800", "\ufffe", "]]>", "", "  "])
def test_svg_escapes_every_token(nasty):
    document = heatmap_svg([[0.3, 0.7]], [nasty, "x"], [nasty], title=nasty)
    document.encode()
    assert "<script" not in document
    assert len(texts(document)) == 3 + 2 + (1 if nasty else 0)


def test_a_lone_combining_mark_gets_a_dotted_circle():
    assert drawing.label("ा") == "◌ा" and drawing.label("्") == "◌्"
    assert (
        drawing.label("खा") == "खा"
        and drawing.label(" ") == "␣"
        and drawing.label("") == "∅"
        and drawing.label("\x07") == "\ufffd"
    )
    assert drawing.label("\u202ea\u2066b\u2069") == "\ufffda\ufffdb\ufffd"  # what follows would be turned around
    assert drawing.label("क्\u200dष\u200c") == "क्\u200dष\u200c"  # joiners belong to the word


def test_colours_run_from_light_to_dark_in_one_hue():
    lightness = [sum(drawing.colour(w)) for w in np.linspace(0, 1, 21)]
    assert lightness == sorted(lightness, reverse=True)
    assert drawing.colour(-1) == drawing.colour(0) and drawing.colour(2) == drawing.colour(1)


def test_svg_curves():
    document = bleu_by_length_svg(CURVES)
    found = texts(document)
    assert {"3–8", "9+", "with 96.5", "without 40.0", "source words"} <= set(found)
    lines = list(ElementTree.fromstring(document).iter(f"{XML}polyline"))
    heights = [[float(point.split(",")[1]) for point in line.get("points").split()] for line in lines]
    assert heights[0][0] < heights[1][0] < heights[1][1]  # a lower BLEU is further down


def test_labels_of_curves_do_not_overlap():
    assert spread([50.0, 50.0, 49.0], 9) == [50.0, 41.0, 32.0]
    assert spread([10.0, 90.0], 9) == [10.0, 90.0]


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "expected at least one model"),
        ({"a": []}, "expected at least one model"),
        ({"a": CURVES["with"], "b": CURVES["with"][:1]}, "'b' has the buckets"),
        ({"a": [{"from": 1, "to": 1, "pairs": 1, "bleu": None}]}, "'a' has no BLEU in bucket 1"),
    ],
)
def test_bad_curves(curves, message):
    for draw in (bleu_by_length_svg, plot.bleu_by_length):
        with pytest.raises(ValueError, match=message):
            draw(curves)


@pytest.mark.parametrize("draw", [heatmap_svg, plot.heatmap, plot.terminal_heatmap])
def test_bad_weights(draw):
    with pytest.raises(ValueError, match=r"weights have shape \(3, 6\), expected \(T=2, S=6\)"):
        draw(WEIGHTS, SOURCE, TARGET[:2])
    with pytest.raises(ValueError, match=r"weights\[1, 2\] is nan"):
        draw(np.where(np.arange(18).reshape(3, 6) == 8, np.nan, WEIGHTS), SOURCE, TARGET)
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(np.zeros((0, 6)), SOURCE, [])


def test_heads_show_their_mean():
    heads = np.stack([WEIGHTS, 1 - WEIGHTS])
    assert heatmap_svg(heads, SOURCE, TARGET) == heatmap_svg(np.full((3, 6), 0.5), SOURCE, TARGET)


# ---------------------------------------------------------------- matplotlib


def test_figure_has_the_tokens_in_order(capsys):
    figure = plot.heatmap(WEIGHTS, SOURCE, TARGET, title="article")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == SOURCE
    assert [label.get_text() for label in axes.get_yticklabels()] == TARGET
    numbers = [text.get_text() for text in axes.texts]
    assert numbers[0] == ".90" and numbers[2] == "" and len(numbers) == WEIGHTS.size
    np.testing.assert_array_equal(axes.collections[0].get_array().reshape(3, 6), WEIGHTS)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_files_by_suffix(tmp_path, suffix):
    starts = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    for name, save in (
        ("map", lambda path: plot.save_heatmap(path, WEIGHTS, SOURCE, TARGET, title="मैं")),
        ("curve", lambda path: plot.save_bleu_by_length(path, CURVES)),
    ):
        path = tmp_path / (name + suffix)
        save(path)
        assert path.read_bytes().startswith(starts[suffix.lower()])


def test_a_figure_saves_text_as_text_too(tmp_path):
    path = tmp_path / "figure.svg"
    plot.heatmap(WEIGHTS, SOURCE, TARGET).savefig(path)
    assert "eating" in path.read_text(encoding="utf-8")


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif: suffix '\.gif', expected \.svg, \.png or \.pdf"):
        plot.save_heatmap(tmp_path / "a.gif", WEIGHTS, SOURCE, TARGET)


def test_missing_font_is_said_once_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figure, "_said", set())
    # A letter of the private use area is in no font of a usual machine.
    for name in ("a.png", "b.png"):
        plot.save_heatmap(tmp_path / name, [[1.0]], ["\U0010fffd"], ["x"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no installed font has" in error and ".svg" in error


def test_each_script_without_a_font_is_said(tmp_path, monkeypatch, capsys):
    """A picture of other letters is not silent because of an earlier one."""
    monkeypatch.setattr(figure, "_said", set())
    monkeypatch.setattr(figure, "_families_of", lambda letters: (("DejaVu Sans",), letters & {"क", "ख", "字"}))
    monkeypatch.setattr(figure, "_add_new_fonts", lambda: False)
    for number, token in enumerate(("क", "ख", "字")):
        plot.save_heatmap(tmp_path / f"{number}.png", [[1.0]], [token], ["x"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == [" no installed font has क", " no installed font has 字"]


def test_a_font_installed_since_is_found(monkeypatch):
    """matplotlib's own list is a file that may be older than the font."""
    from matplotlib.font_manager import fontManager

    serif = [font for font in fontManager.ttflist if font.name == "DejaVu Sans Mono"]
    assert serif
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font not in serif])
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [font.fname for font in serif])
    figure.font_families(frozenset("\U0010fffd"))
    assert "DejaVu Sans Mono" in {font.name for font in fontManager.ttflist}


@pytest.mark.parametrize("token", ["$\\foo$", "${$", "$_$", "US$5-$10", "$x_1$", "\\alpha"])
def test_a_figure_draws_tokens_as_they_are(tmp_path, token):
    """Prices and code are no mathematics: nothing is parsed, and the text of a drawn file is the token's."""
    path = tmp_path / "a.svg"
    plot.heatmap([[1.0]], [token], ["x"], title=token).savefig(path)
    assert path.read_text(encoding="utf-8").count(f">{token}</text>") == 2
    plot.bleu_by_length({token: CURVES["with"]}, title=token).savefig(path)
    assert f">{token} 96.5</text>" in path.read_text(encoding="utf-8")


def test_svg_and_terminal_need_no_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from dhyan import plot; from dhyan.plot.heatmap import heatmap_svg\n"
        "heatmap_svg([[1.0]], ['a'], ['b']); plot.terminal_heatmap([[1.0]], ['a'], ['b'], width=20)\n"
        "try: plot.heatmap([[1.0]], ['a'], ['b'])\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "PNG and PDF pictures need matplotlib: pip install 'dhyan[plot]'\n"


# ---------------------------------------------------------------- terminal


def test_terminal_columns_are_aligned():
    lines = plot.terminal_heatmap(WEIGHTS, SOURCE, TARGET, width=80, color=False).split("\n")
    assert len(lines) == 4 and lines[1].startswith("     I ") and lines[3].startswith("eating ")
    starts = []
    for token in SOURCE:  # in columns, not in characters
        before = lines[0][: lines[0].index(f" {token}") + 1]
        starts.append(drawing.cell_width(before))
    assert starts == sorted(starts)
    assert lines[1][starts[0] : starts[0] + 3] == "███"  # .9
    assert lines[2][starts[4]] == "▓" and lines[2][starts[3]] == "░"  # .75 and .25
    assert lines[3][starts[2]] == "▒" and lines[3].rstrip() == lines[3]


def test_cell_width_counts_like_wcwidth():
    assert [drawing.cell_width(text) for text in ("abc", "मैं", "खाना", "हूँ", "日本", "e\u0301", "")] == [
        3,
        1,
        4,
        1,
        4,
        1,
        0,
    ]


@pytest.mark.parametrize("width", [1, 8, 20, 37])
def test_terminal_wraps_into_blocks(width):
    S = 40
    text = plot.terminal_heatmap(np.eye(3, S), [f"w{s}" for s in range(S)], ["a", "bb", "long-token"], width=width)
    blocks = text.split("\n\n")
    assert len(blocks) > 1 and all(len(block.split("\n")) == 4 for block in blocks)
    assert sum(block.split("\n")[0].count("w") for block in blocks) == S
    if width >= 20:
        assert max(map(drawing.cell_width, text.split("\n"))) <= width


def test_terminal_cuts_a_token_wider_than_the_screen():
    text = plot.terminal_heatmap([[1.0]], ["x" * 200], ["y" * 200], width=30, color=False)
    assert max(map(drawing.cell_width, text.split("\n"))) <= 30 and text.count("…") == 2


def test_terminal_colour_only_when_asked_or_on_a_terminal():
    plain = plot.terminal_heatmap(WEIGHTS, SOURCE, TARGET, width=60)  # pytest's stdout is no terminal
    assert "\x1b" not in plain
    coloured = plot.terminal_heatmap(WEIGHTS, SOURCE, TARGET, width=60, color=True)
    assert "\x1b[38;2;" in coloured and "\x1b[8G" in coloured
    with pytest.raises(ValueError, match="width is 0"):
        plot.terminal_heatmap(WEIGHTS, SOURCE, TARGET, width=0)
