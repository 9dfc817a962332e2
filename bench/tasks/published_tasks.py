"""The runs of `published.py` as data: every task's files, its one setting for all parts, and what was published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ENSEMBLE = "ensemble"  # stands where a seed stands


@dataclass(frozen=True)
class Task:
    """A data set: `parts` are its languages, or variants of the model.

    training, test: words of `dhyan train` and `dhyan evaluate`; {part} is filled in, "@NAME" is a file of the data
    folder, "@N:NAME" every Nth line of it, `sample` lines at most. options: the one setting of all parts and seeds;
    varied: what is added for a part. ensemble: the models that are joined for a part, each (task, seed). published:
    part -> figures as printed in the reference, in the order of `measures` (names of `published_table.MEASURES`); its
    mean over parts is to be reached.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    training: tuple[str, ...]
    test: tuple[str, ...]
    measures: tuple[str, ...]
    options: tuple[str, ...] = ()
    varied: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1,)
    ensemble: tuple[tuple[str, int], ...] = ()
    sample: int = 0
    published: dict[str, tuple[float, ...]] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Run:
    """One model of a task, or the ensemble of all seeds of a part."""

    task: Task
    part: str
    seed: int | str

    @property
    def name(self) -> str:
        """TASK/PART/SEED, as --only takes it."""
        return f"{self.task.name}/{self.part}/{self.seed}"

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return self.name.replace("/", "-")

    @property
    def members(self) -> list[Run]:
        """The runs whose models an ensemble joins; [] for a model."""
        if self.seed != ENSEMBLE:
            return []
        return [Run(TASKS[task], self.part, seed) for task, seed in self.task.ensemble]

    @property
    def train_words(self) -> list[str]:
        """The words after `dhyan` that train it, without --out; [] for an ensemble."""
        if self.members:
            return []
        t = self.task
        words = ["train", *t.training, *t.options, *t.varied.get(self.part, ()), "--seed", str(self.seed)]
        return [word.format(part=self.part) for word in words]

    @property
    def test_words(self) -> list[str]:
        """The words after `dhyan evaluate MODEL`."""
        return [*(word.format(part=self.part) for word in self.task.test), "--json"]


SIZES = ("--embedding", "128", "--hidden", "256")
COSINE = ("--schedule", "cosine", "--warmup", "100", "--patience", "100")  # all epochs; the best of them is kept

G2P_FILES = "@g2p_sigmorphon2020/{part}_"
G2P: dict[str, Any] = {
    "parts": ("fre", "gre", "hin", "hun", "ice", "rum"),
    "training": (G2P_FILES + "train.tsv", G2P_FILES + "dev.tsv", "--source-level", "char", "--target-level", "word"),
    "test": (G2P_FILES + "test.tsv",),
    "measures": ("WER", "PER"),
    "published": {
        "fre": (6.22, 1.32), "gre": (18.89, 3.30), "hin": (6.67, 1.47), "hun": (5.33, 1.18),
        "ice": (10.00, 2.36), "rum": (10.67, 2.53), "mean": (9.63, 2.03),
    },
    "source": "an attentive LSTM, the best of 36 settings for each language (Gorman et al. 2020)",
}  # fmt: skip
G2P_OPTIONS = (*SIZES, *COSINE, "--dropout", "0.4", "--precision", "bf16")
EUTRANS = "@eutrans_es_en/"
INFLECTION = "inflection_sigmorphon2016/spanish_"
TATOEBA = "@tatoeba_es_en/"

TASKS = {
    task.name: task
    for task in (
        Task(
            "g2p",
            "SIGMORPHON 2020, grapheme to phoneme",
            **G2P,
            options=(*G2P_OPTIONS, "--epochs", "60", "--normalize", "sparsemax"),
            seeds=(1, 2, 3),
            ensemble=(("g2p", 1), ("g2p", 2), ("g2p", 3)),
        ),
        Task(
            "g2p-softmax",
            "the same with softmax",
            **G2P,
            options=(*G2P_OPTIONS, "--epochs", "60"),
        ),
        Task(
            "g2p-luong",
            "the same in the order of Luong",
            **G2P,
            options=(*G2P_OPTIONS, "--epochs", "45", "--normalize", "sparsemax", "--order", "luong"),
        ),
        Task(
            "g2p-kinds",
            "one model of each kind",
            **G2P,
            seeds=(),
            ensemble=(("g2p", 1), ("g2p-softmax", 1), ("g2p-luong", 1)),
        ),
        Task(
            "dakshina",
            "Dakshina, Hindi written in Latin letters",
            parts=("additive", "none"),
            training=(
                "@dakshina_hi/train.tsv", "@dakshina_hi/dev.tsv", "--source-level", "char", "--target-level", "char",
            ),
            test=("@dakshina_hi/test.tsv",),
            options=(*SIZES, *COSINE, "--epochs", "10", "--dropout", "0.3"),
            varied={"none": ("--attention", "none")},
            measures=("exact match",),
            published={"additive": (42.03,), "none": (39.94,)},
            source="a bi-LSTM of 256, and without attention two and three layers (DLAssignment3 of ma23m020Snehal)",
        ),
        Task(
            "eutrans",
            "EuTrans, Spanish to English",
            parts=("additive",),
            training=(
                "--source", EUTRANS + "train.es", EUTRANS + "dev.es",
                "--target", EUTRANS + "train.en", EUTRANS + "dev.en",
            ),
            test=("--source", EUTRANS + "test.es", "--target", EUTRANS + "test.en"),
            options=(*SIZES, "--epochs", "25"),  # ten epochs of the cosine end at 94 BLEU
            measures=("BLEU",),
            published={"additive": (67.87,)},
            source="an LSTM of 32 after 4 epochs; the same project says close to 100 for its full size (NMT-Keras)",
        ),
        Task(
            "inflection",
            "SIGMORPHON 2016, Spanish inflection",
            parts=("spanish",),
            training=(
                f"@{INFLECTION}train.tsv", f"@{INFLECTION}dev.tsv", "--columns", "1,2:3",
                "--source-level", "char", "--target-level", "char",
            ),
            test=(f"@11:{INFLECTION}test.tsv",),
            sample=2_000,
            options=(*SIZES, *COSINE, "--epochs", "15"),
            measures=("exact match",),
            published={"spanish": (98.84,)},
            source="an ensemble of five attentive GRUs on the whole test (Kann and Schuetze 2016; not verified)",
        ),
        Task(
            "tatoeba",
            "Tatoeba, Spanish to English",
            parts=("additive", "none"),
            training=(TATOEBA + "train.tsv.gz", TATOEBA + "dev.tsv.gz"),
            test=(TATOEBA + "test.tsv.gz",),
            options=(
                *SIZES, *COSINE, "--epochs", "8", "--source-level", "subword", "--target-level", "subword",
                "--source-vocabulary", "4000", "--target-vocabulary", "4000", "--precision", "bf16",
            ),
            varied={"none": ("--attention", "none")},
            measures=("BLEU", "chrF"),
            source="not known for this split",
        ),
    )
}  # fmt: skip


def runs() -> list[Run]:
    """Every run, in the order of the table."""
    return [
        Run(task, part, seed)
        for task in TASKS.values()
        for part in task.parts
        for seed in (*task.seeds, *([ENSEMBLE] if task.ensemble else []))
    ]
