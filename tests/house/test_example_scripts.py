"""The examples run, in seconds with --quick, and print what they are there to show."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


def run(tmp_path: Path, name: str, *arguments: str) -> str:
    """What the example prints; it must end well, within 10 s of computing (on one thread), and complain of nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1", "MPLBACKEND": "Agg"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert after.ru_utime - before.ru_utime < 10
    return done.stdout


def percents(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) ?%", line)]


def rows(text: str, pattern: str) -> list[re.Match[str]]:
    """All lines that match, at least one."""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    assert found, text
    return found


def test_bottleneck(tmp_path: Path) -> None:
    """Short inputs are easy for both; on the longest the plain model has forgotten much that attention still reads."""
    printed = run(tmp_path, "bottleneck.py", "--quick", "--out", "by-length.svg")
    table = [percents(row[0]) for row in rows(printed, r"^ *\d+ to +\d+ digits.*")]
    assert len(table) == 6
    (plain_short, attentive_short), (plain_long, attentive_long) = table[0], table[-1]
    assert min(plain_short, attentive_short) > 90
    assert plain_long < 60 < 90 < attentive_long
    ElementTree.parse(tmp_path / "by-length.svg")


def test_four_steps(tmp_path: Path) -> None:
    printed = run(tmp_path, "four_steps.py")
    assert "scores   [0.7 0.5 0.3]\nweights  [0.4018 0.3289 0.2693]\ncontext  [0.5662 0.4338]\n" in printed
    assert "attend   [0.5662 0.4338] the same: True" in printed
    focus = re.findall(r"^query .* -> {'source_token': '(\w+)'", printed, re.MULTILINE)
    assert focus == ["I", "eating", "I"]


def test_focus(tmp_path: Path) -> None:
    """The line of the articles; the weights move when the query does."""
    printed = run(tmp_path, "focus.py", "--out", "focus.svg")
    lines = printed.splitlines()
    assert lines[1] == "{'source_token': 'nlp', 'weight': 0.7}"
    largest = [lines[i + 1] for i, line in enumerate(lines) if line.endswith((":", ".")) and i + 1 < len(lines)]
    assert largest[1] == "{'source_token': 'models', 'weight': 0.7}"
    steps = [float(row[1]) for row in rows(printed, r"^ *\d+%.* nlp ([\d.]+)")]
    assert len(steps) == 5 and steps == sorted(steps) and steps[0] < 0.1 and steps[-1] > 0.9
    ElementTree.parse(tmp_path / "focus.svg")


def test_alignment_functions(tmp_path: Path) -> None:
    """In one space all find their words; turned against each other only those that learn a matrix do."""
    printed = run(tmp_path, "alignment_functions.py", "--quick", "--out", "alignments.png")
    lines = rows(printed, r"^(\w+(?:, \w+(?: \d)?)?) +([01]\.\d+) +([01]\.\d+) ")
    table = {row[1]: (float(row[2]), float(row[3])) for row in lines}
    assert len(table) == 12
    tie = 5 / 6  # four words found, and two halves of "the"
    for name in ("general", "additive", "concat", "coverage"):
        assert min(table[name]) > tie - 0.05
    for name in ("dot", "scaled_dot", "cosine"):
        assert table[name][0] > 0.3 > table[name][1]
    assert table["location_sensitive"][0] > tie + 0.05  # the second "the" is found by where the reader was
    assert table["additive, window 1"][0] > 0.95 and table["additive, predictive"][0] > 0.85
    assert (tmp_path / "alignments.png").read_bytes()[:8] == PNG


def test_oracle(tmp_path: Path) -> None:
    """Gold links are an upper bound for what is learned, which is better than nothing."""
    printed = run(tmp_path, "oracle.py", "--quick", "--out", "oracle.svg")
    lines = rows(printed, r"^(.{20}) +[\d.]+% +([\d.]+)% +([01]\.\d+)$")
    errors = {row[1].strip(): (float(row[2]), float(row[3])) for row in lines}
    assert list(errors) == ["without attention", "the mean", "learned", "gold links"]
    assert errors["gold links"][0] < min(errors[name][0] for name in ("without attention", "the mean", "learned"))
    assert errors["gold links"][1] < 0.1 < errors["without attention"][1]
    for name in ("oracle-learned.svg", "oracle-gold.svg"):
        ElementTree.parse(tmp_path / name)


@pytest.mark.parametrize("name", ["hindi_to_english.py", "english_to_spanish.py"])
def test_translation(tmp_path: Path, name: str) -> None:
    """It learns much in seconds, translates, and says for every word where it looked."""
    printed = run(tmp_path, name, "--quick", "--out", "heatmap.svg")
    reports = rows(printed, r"^epoch +\d+  loss ([\d.]+)  exact match (\d+) %")
    assert float(reports[-1][1]) < 0.5 * float(reports[0][1]) and int(reports[-1][2]) > 5
    translations, weights = (
        rows(printed, r"^.+  ->  \w+.*"),
        rows(printed, r"'source_token': '(.+)', 'weight': ([\d.]+)"),
    )
    assert len(translations) >= 2 and all(0 <= float(row[2]) <= 1 for row in weights)
    ElementTree.parse(tmp_path / "heatmap.svg")


def test_captions(tmp_path: Path) -> None:
    """It looks at the digit that it says: chance is a quarter of the glimpses, in reading it a tenth of the digits."""
    pytest.importorskip("sklearn")
    printed = run(tmp_path, "captions.py", "--quick", "--out", "captions.png")
    (said,) = rows(printed, r"^400 pictures.*")
    (looked,) = rows(printed, r".* of what it looked at .*")
    assert percents(said[0])[1] > 60
    assert percents(looked[0])[0] > 80
    assert (tmp_path / "captions.png").read_bytes()[:8] == PNG


def test_time_series(tmp_path: Path) -> None:
    """Most phones are heard right and where they sound."""
    printed = run(tmp_path, "time_series.py", "--quick", "--out", "listening.png")
    (row,) = rows(printed, r"^location_sensitive +.*")
    error, _, inside = percents(row[0])
    assert error < 25 and inside > 75
    assert (tmp_path / "listening.png").read_bytes()[:8] == PNG


def test_summarise(tmp_path: Path) -> None:
    """Words that no vocabulary has: a model that only generates has none of them, one that copies most."""
    printed = run(tmp_path, "summarise.py", "--quick")
    generates, replaced, copies = (percents(row[0]) for row in rows(printed, r"^generates.*%.*"))
    assert generates[0] == 0 and copies[0] > 60 and copies[0] > replaced[0]
    assert rows(printed, r"^\w+ +0\.\d\d +1\.00  ████████")  # a copied word in the picture


def test_self_attention(tmp_path: Path) -> None:
    printed = run(tmp_path, "self_attention.py")
    assert "shuffled words, shuffled contexts, nothing else: True" in printed
    (last,) = rows(printed, r"^step 100: +([\d.]+)%")
    assert float(last[1]) > 99


def test_every_example_is_told_in_the_readme_and_says_how_to_run_it() -> None:
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    listed = re.findall(r"^\| `(\w+\.py)` \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == scripts
    for name in scripts:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert re.match(rf'""".+?Run: python examples/{name}', text, re.DOTALL), name
