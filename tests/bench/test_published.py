"""The bench of published figures: what it runs, keeps, skips and prints, on tiny data made here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tasks import published, published_table
from tasks.published_tasks import ENSEMBLE, TASKS, Run, runs

BENCH = Path(__file__).resolve().parents[2] / "bench"
TINY = "--epochs 1 --embedding 8 --hidden 8 --batch 8"


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "task.py"), "published", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Words of two letters and their phones; verbs with tags, 40 lines to test."""
    folder = tmp_path / "data"
    words = [a + b for a in "abcde" for b in "fghij"]
    for name, lines in (
        ("g2p_sigmorphon2020/hin", [f"{word}\t{word[0]} {word[1]}" for word in words]),
        ("inflection_sigmorphon2016/spanish", [f"{word}\tpos=V,n={k}\t{word}{k}" for word in words for k in (1, 2)]),
    ):
        (folder / name).parent.mkdir(parents=True)
        for part, kept in (("train", lines), ("dev", lines[:5]), ("test", lines[:40])):
            (folder / f"{name}_{part}.tsv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder


def record(exact: float, error: float, seconds: float = 10.0, **figures: Any) -> dict[str, Any]:
    found = {"exact_match": exact, "token_error_rate": error, "bleu": 50.0, "chrf": 60.0, **figures}
    return {"figures": found, "train_cpu_seconds": seconds, "epochs": 3}


def test_every_run_has_a_name_of_its_own_and_one_setting_a_task() -> None:
    names = [r.name for r in runs()]
    assert len(names) == len(set(names)) and {name.split("/")[0] for name in names} == set(TASKS)
    for task in TASKS.values():
        assert all(len(figures) == len(task.measures) for figures in task.published.values())
        assert set(task.published) <= {*task.parts, "mean"} and set(task.varied) <= set(task.parts)
        assert all(name in published_table.MEASURES for name in task.measures)
    hindi, french = (Run(TASKS["g2p"], part, 2).train_words for part in ("hin", "fre"))
    assert [word.replace("hin_", "fre_") for word in hindi] == french  # the languages differ in their files alone
    mean = TASKS["g2p"].published["mean"]
    languages = [TASKS["g2p"].published[part] for part in TASKS["g2p"].parts]
    assert mean == pytest.approx(
        [sum(column) / 6 for column in zip(*languages, strict=True)], abs=0.005
    )  # two decimals


def test_an_ensemble_may_join_models_of_other_tasks() -> None:
    [kinds] = published.chosen("g2p-kinds/hin")
    assert [r.name for r in kinds.members] == ["g2p/hin/1", "g2p-softmax/hin/1", "g2p-luong/hin/1"]
    every = [r.name for r in runs()]
    assert all(
        every.index(m.name) < every.index(r.name) for r in runs() for m in r.members
    )  # done before they are joined


def test_only_takes_tasks_parts_and_seeds() -> None:
    assert [r.name for r in published.chosen("g2p/hin/1")] == ["g2p/hin/1"]
    assert [r.name for r in published.chosen("eutrans, g2p/*/3")][-1] == "eutrans/additive/1"
    assert len(published.chosen("g2p/hin")) == 4 and len(published.chosen("g2p/*/3")) == 6
    done = start("--only", "g2p/hindi/1")
    assert done.returncode == 2 and "no run 'g2p/hindi/1'" in done.stderr and "hin" in done.stderr


def test_a_run_is_measured_once_and_kept(data: Path, tmp_path: Path) -> None:
    where = ("--data", data, "--out", tmp_path / "out", "--options", TINY)
    done = start("--only", "g2p/hin/1", *where)
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "out" / "g2p-hin-1.json"
    first = json.loads(kept.read_text(encoding="utf-8"))
    assert first["train"][-8:] == TINY.split() and first["figures"]["pairs"] == 25 and first["epochs"] == 1
    assert first["train_cpu_seconds"] > 0 and first["dhyan"]["isa"] and str(data) not in json.dumps(first["train"])
    rows = [line for line in done.stdout.splitlines() if line.startswith("| SIG")]
    wer = f"{100 * (1 - first['figures']['exact_match']):.2f}"
    assert len(rows) == 1 and "6.67 / 1.47" in rows[0] and wer in rows[0]
    again = start("--only", "g2p/hin/1", *where)
    assert again.returncode == 0 and "done before" in again.stderr and again.stdout == done.stdout
    assert json.loads(kept.read_text(encoding="utf-8")) == first
    other = start("--table", *where[:-1], TINY + " --lr 0.1")  # another command measured something else
    assert "| SIG" not in other.stdout


def test_a_sample_is_every_eleventh_line(data: Path, tmp_path: Path) -> None:
    where = ("--data", data, "--out", tmp_path / "out", "--models", tmp_path / "models", "--options", TINY)
    done = start("--only", "inflection", *where)
    assert done.returncode == 0, done.stderr
    lines = (data / "inflection_sigmorphon2016" / "spanish_test.tsv").read_text(encoding="utf-8").splitlines()
    sample = (tmp_path / "models" / "every-11-spanish_test.tsv").read_text(encoding="utf-8").splitlines()
    assert sample == [lines[0], lines[11], lines[22], lines[33]]
    kept = json.loads((tmp_path / "out" / "inflection-spanish-1.json").read_text(encoding="utf-8"))
    assert kept["figures"]["pairs"] == 4


def test_what_cannot_run_is_one_line(data: Path, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "out", "--options", TINY)
    done = start("--only", "g2p/hin/1,g2p/fre/1", "--data", data, *where)  # there is no French
    assert done.returncode == 1 and "g2p/fre/1: dhyan:" in done.stderr and "fre_train.tsv" in done.stderr
    assert "hin" in done.stdout  # the other one was made all the same
    missing = start("--only", "g2p/hin/ensemble", "--data", data, *where)
    assert missing.returncode == 1 and "g2p/hin/2, g2p/hin/3, not done yet" in missing.stderr
    nowhere = start("--only", "eutrans", "--data", tmp_path / "absent", *where)
    assert nowhere.returncode == 1 and "expected DHYAN_DATA or --data" in nowhere.stderr


def test_a_stopped_training_goes_on_and_its_cost_is_the_sum(data: Path, tmp_path: Path) -> None:
    place = published.Workplace(data, tmp_path / "models", tmp_path / "out", TINY.split())
    place.models.mkdir()
    r = Run(TASKS["g2p"], "hin", 1)
    first = published.train(place, r)
    second = published.train(place, r)  # --resume: nothing is left to do but to start
    assert second > first > 0
    assert len((place.model(r) / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_the_table_has_means_of_seeds_languages_and_ensembles() -> None:
    task = TASKS["g2p"]
    records = {
        f"g2p/{part}/{seed}": record(0.9 + seed / 100, 0.01 * seed, 10 * seed)
        for part in task.parts
        for seed in (1, 2, 3)
    }
    text = published_table.table(records)
    assert "| SIGMORPHON 2020, grapheme to phoneme: hin | WER / PER | 6.67 / 1.47 | 8.00 / 2.00 | 3 | 20 |" in text
    assert "mean of the 6** | WER / PER | 9.63 / 2.03 | 8.00 / 2.00 | 18 | 20 |" in text
    records |= {f"g2p/{part}/{ENSEMBLE}": record(0.95, 0.01) for part in task.parts}
    assert "mean of the 6, ensemble of 3** | WER / PER |  | 5.00 / 1.00 |" in published_table.table(records)
    del records["g2p/fre/1"], records["g2p/fre/2"], records["g2p/fre/3"]
    assert "mean of the 6**" not in published_table.table(records)  # five languages are not the six


def test_bleu_by_length_is_a_table_and_a_plot(tmp_path: Path) -> None:
    def lengths(*bleu: float) -> list[dict[str, Any]]:
        return [{"from": 1 + 5 * i, "to": 5 + 5 * i, "pairs": 100, "bleu": b} for i, b in enumerate(bleu)]

    records = {
        f"tatoeba/{part}/1": record(0.5, 0.2, by_length=lengths(*bleu), bleu=bleu[0])
        for part, bleu in (("additive", (40.0, 38.0)), ("none", (35.0, 12.0)))
    }
    assert "| 6-10 | 100 | 38.00 | 12.00 |" in published_table.table(records)
    published_table.plot(records, tmp_path / "lengths.svg")
    assert "additive" in (tmp_path / "lengths.svg").read_text(encoding="utf-8")


def test_an_ensemble_joins_the_models_of_all_seeds(data: Path, tmp_path: Path) -> None:
    where = ("--data", data, "--out", tmp_path / "out", "--options", TINY)
    done = start("--only", "g2p/hin", *where)
    assert done.returncode == 0, done.stderr
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((tmp_path / "out").glob("g2p-hin-*.json"))]
    *models, joined = kept
    assert [r["name"] for r in kept] == ["g2p/hin/1", "g2p/hin/2", "g2p/hin/3", "g2p/hin/ensemble"]
    assert joined["train"] == [" ".join(r["train"]) for r in models]  # stale where a member would be trained otherwise
    assert joined["epochs"] == 3 and joined["figures"]["pairs"] == 25
    assert joined["train_cpu_seconds"] == pytest.approx(sum(r["train_cpu_seconds"] for r in models))
    assert "hin, ensemble of 3 |" in done.stdout
