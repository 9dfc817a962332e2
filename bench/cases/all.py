"""What is measured, as data: an operation, its sizes, the PyTorch forms beside it, and the ratio that is asked for.

The sections "scorings" and "steps" are listed in attention.py. Letters as in the README: B sentences, T target and S
source positions, H width of queries and keys, D of values, E of embeddings, V of the vocabulary. All numbers a case
needs are drawn here, from one seed, for every side.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from spec import model as reference_model

from cases import attention as attentions

Arrays = dict[str, np.ndarray]

FORWARD, BOTH = "forward", "forward+backward"
SECTIONS = ("gemm", "kernels", "scorings", "train", "steps", "decode", "memory")
EAGER_COMPILE = ("eager", "compile")
END = 2  # the end symbol's id


@dataclass(frozen=True)
class Case:
    """One line of the tables. `ours` and `peers` are forms of the same computation; the fastest of each side counts.

    must, aim: the ratio asked of the last pass against the best PyTorch form, None where none is stated.
    """

    section: str
    op: str
    sizes: dict[str, int]
    ours: tuple[str, ...] = ("dhyan",)
    peers: tuple[str, ...] = ("eager",)
    cell: str = ""
    must: float | None = None
    aim: float | None = None
    passes: tuple[str, ...] = (FORWARD, BOTH)
    tiny: dict[str, int] = field(default_factory=dict)

    @property
    def shape(self) -> str:
        """The sizes as one word: B64 T20 S20 H256."""
        return " ".join(f"{letter}{size}" for letter, size in self.sizes.items())

    @property
    def name(self) -> str:
        """What identifies the case in the results of any run."""
        op = "" if self.op == self.section else self.op
        return " ".join(part for part in (self.section, op, self.cell, self.shape) if part)

    @property
    def modelled(self) -> bool:
        """Whole models are checked at tiny sizes, where the specification can follow them; kernels as they are."""
        return self.section in ("train", "steps", "decode")

    def quick(self) -> Case:
        """The same at tiny sizes, different in every axis so that no two can be mistaken."""
        return dataclasses.replace(self, sizes=dict(self.tiny), must=None, aim=None)


def _attention(op: str, B: int, T: int, S: int, H: int, must: float | None, aim: float | None) -> Case:
    tiny = {"B": 3, "T": 1 if T == 1 else 5, "S": 7, "H": 18}
    if op == "additive":
        peers: tuple[str, ...] = ("eager", "compile", "compile-sum")
        return Case("kernels", op, {"B": B, "T": T, "S": S, "H": H}, ("weights",), peers, "", must, aim, tiny=tiny)
    sizes = {"B": B, "T": T, "S": S, "H": H}
    return Case("kernels", op, sizes, ("weights", "context"), ("eager", "compile", "sdpa"), "", must, aim, tiny=tiny)


def _sequence(op: str, B: int, T: int, S: int, D: int = 0) -> Case:
    sizes, tiny = {"B": B, "T": T, "S": S}, {"B": 3, "T": 5, "S": 7}
    if D:
        sizes, tiny = sizes | {"D": D}, tiny | {"D": 18}
    return Case("kernels", op, sizes, peers=EAGER_COMPILE, tiny=tiny)


_MODEL_TINY = {"V": 7, "E": 3, "H": 4, "B": 3, "S": 5, "T": 4}


def _model(
    section: str, cell: str, V: int, H: int, B: int, ST: int, must: float | None, aim: float | None, op: str = ""
) -> Case:
    sizes = {"V": V, "E": 64 if V == 100 else H, "H": H, "B": B, "S": ST, "T": ST}
    peers = ("eager", "eager-split", "compile-split") if section == "train" else EAGER_COMPILE
    passes = ("step",) if section == "train" else ("greedy",)
    if op == "bf16":
        peers += ("eager-autocast",)
    tiny = _MODEL_TINY | {"B": min(B, 3)}
    return Case(section, op or section, sizes, ("dhyan",), peers, cell, must, aim, passes, tiny)


def _scoring(label: str, sizes: dict[str, int]) -> Case:
    ours, peers = attentions.forms(label)
    return Case("scorings", label, sizes, ours, peers, tiny=attentions.tiny(label))


def _steps(label: str) -> Case:
    sizes = {"V": 100, "E": 64, "H": 128, "B": 32, "S": 12, "T": 12}
    return Case("steps", label, sizes, peers=(), cell="gru", passes=("step",), tiny=_MODEL_TINY)


CASES: tuple[Case, ...] = (
    Case("gemm", "gemm", {"M": 1024, "N": 1024, "K": 1024}, passes=(FORWARD,), tiny={"M": 5, "N": 7, "K": 9}),
    Case("gemm", "gemm", {"M": 2048, "N": 2048, "K": 2048}, passes=(FORWARD,), tiny={"M": 9, "N": 17, "K": 5}),
    _attention("additive", 64, 1, 20, 256, 4, 8),
    _attention("additive", 64, 20, 20, 256, 12, 18),
    _attention("additive", 64, 50, 50, 256, 20, 45),
    _attention("additive", 32, 50, 50, 512, 20, 28),
    _attention("additive", 32, 100, 100, 512, 20, 28),
    _attention("additive", 8, 200, 200, 512, 20, 28),
    _attention("additive", 128, 10, 128, 1024, None, None),
    _attention("additive", 1280, 1, 66, 1024, 4, 8),
    _attention("additive", 32, 74, 75, 1024, 20, 28),
    _attention("scaled_dot", 64, 20, 20, 256, 1.5, 2.5),
    _attention("scaled_dot", 64, 50, 50, 256, 1.5, 2.5),
    _attention("scaled_dot", 32, 100, 100, 512, 1.5, 2.5),
    _attention("scaled_dot", 8, 200, 200, 512, 1.5, 2.5),
    _attention("scaled_dot", 8, 1000, 1000, 64, 1.5, 2.5),
    _attention("scaled_dot", 64, 1000, 1000, 64, 1.5, 2.5),
    _attention("scaled_dot", 4, 4000, 4000, 64, 1.5, 2.5),
    _sequence("softmax", 64, 20, 20),
    _sequence("softmax", 32, 100, 100),
    _sequence("softmax", 8, 1000, 1000),
    _sequence("context", 64, 20, 20, 512),
    _sequence("context", 32, 100, 100, 1024),
    Case("kernels", "linear", {"M": 1600, "I": 1024, "O": 512}, tiny={"M": 5, "I": 9, "O": 18}),
    Case(
        "kernels", "output_loss", {"N": 1600, "E": 512, "V": 8000}, peers=EAGER_COMPILE, tiny={"N": 5, "E": 9, "V": 19}
    ),
    *(_scoring(label, sizes) for label, sizes in attentions.scored()),
    _model("train", "gru", 100, 128, 32, 12, 3, 5),
    _model("train", "lstm", 100, 128, 32, 12, 2.5, 3.5),
    _model("train", "gru", 8000, 256, 64, 25, None, None),
    _model("train", "lstm", 8000, 256, 64, 25, 2, 2.5),
    _model("train", "gru", 8000, 512, 64, 25, 2.5, 3.2),
    _model("train", "lstm", 8000, 512, 64, 25, None, None),
    # Ours with products in bfloat16; PyTorch in float32, and with autocast.
    _model("train", "gru", 100, 128, 32, 12, None, 4, "bf16"),
    _model("train", "lstm", 100, 128, 32, 12, None, 4, "bf16"),
    _model("train", "gru", 8000, 256, 64, 25, None, 4, "bf16"),
    _model("train", "lstm", 8000, 256, 64, 25, None, 4, "bf16"),
    _model("train", "gru", 8000, 512, 64, 25, None, 4, "bf16"),
    _model("train", "lstm", 8000, 512, 64, 25, None, 4, "bf16"),
    *(_steps(label) for label in attentions.STEPS),
    _model("decode", "gru", 8000, 256, 1, 25, 3, 5),
    _model("decode", "gru", 8000, 512, 1, 25, 5, 10),
    _model("decode", "gru", 8000, 256, 64, 25, 2, 3),
    _model("decode", "gru", 8000, 512, 64, 25, 2, 3),
    _model("decode", "lstm", 8000, 256, 1, 25, 3, 5),
    _model("decode", "lstm", 8000, 512, 1, 25, 5, 10),
    _model("decode", "lstm", 8000, 256, 64, 25, 2, 3),
    _model("decode", "lstm", 8000, 512, 64, 25, 2, 3),
)


def memory_cases() -> list[Case]:
    """Those of CASES whose peak memory is measured: ours at most 64 MB, and at most half of PyTorch's."""
    wanted = (
        "kernels additive B32 T100 S100 H512",
        "train gru V8000 E512 H512 B64 S25 T25",
        "train lstm V8000 E256 H256 B64 S25 T25",
    )
    return [case for name in wanted for case in CASES if case.name == name]


def model_config(case: Case) -> SimpleNamespace:
    """The one architecture of the whole-model cases, as keyword arguments of ModelConfig; steps differ in attention."""
    z = case.sizes
    plain = case.section != "steps"
    which = attentions.setting("additive" if plain else case.op)
    return SimpleNamespace(
        source_size=z["V"], target_size=z["V"], embedding=z["E"], hidden=z["H"], layers=1, cell=case.cell,
        bidirectional=True, attention=which.score, order="bahdanau", input_feeding=True, dropout=0.0, source="tokens",
        max_source=0 if plain else z["S"], residual=False, tie="none", layer_norm=False, copy=False,
        **attentions.options(which),
    )  # fmt: skip


def inputs(case: Case) -> Arrays:
    """The case's arrays, float32 and int64: a function of its name."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))

    def normal(*letters: str) -> np.ndarray:
        return rng.standard_normal([case.sizes[letter] for letter in letters], dtype=np.float32)

    if case.modelled:
        return _model_inputs(case, rng)
    if case.section == "scorings":
        return attentions.inputs(case.op, case.sizes, zlib.crc32(case.name.encode()))
    z = case.sizes
    match case.op:
        case "gemm":
            return {"a": normal("M", "K"), "b": normal("K", "N")}
        case "additive":
            D = 2 * z["H"]  # a bidirectional memory
            v, dcontext = (rng.standard_normal((z["B"], n, D), dtype=np.float32) for n in (z["S"], z["T"]))
            w = normal("H") * np.float32(z["H"] ** -0.5)
            arrays = {"q": normal("B", "T", "H"), "k": normal("B", "S", "H"), "v": v, "w": w, "dcontext": dcontext}
            return arrays | {"end": _ends(case)}
        case "scaled_dot":
            names = {"q": "BTH", "k": "BSH", "v": "BSH", "dcontext": "BTH"}
            return {name: normal(*axes) for name, axes in names.items()}
        case "softmax":
            scores = normal("B", "T", "S") * np.float32(4)
            return {"scores": scores, "dweights": normal("B", "T", "S"), "end": _ends(case)}
        case "context":
            weights = np.exp(normal("B", "T", "S"))
            weights /= weights.sum(-1, keepdims=True)
            return {"weights": weights, "v": normal("B", "S", "D"), "dcontext": normal("B", "T", "D")}
        case "linear":
            return {"x": normal("M", "I"), "w": normal("I", "O"), "b": normal("O"), "dy": normal("M", "O")}
        case "output_loss":
            w = normal("E", "V") * np.float32(z["E"] ** -0.5)
            return {"r": normal("N", "E"), "w": w, "b": normal("V"), "targets": rng.integers(0, z["V"], z["N"])}
    raise ValueError(f"no inputs for {case.op!r}")


def _ends(case: Case) -> np.ndarray:
    """(B, T) ends of what may be attended: the last quarter of every second sentence is padding."""
    S = case.sizes["S"]
    ends = np.full((case.sizes["B"], case.sizes["T"]), S, np.int64)
    ends[::2] = S - (S + 3) // 4
    return ends


def _model_inputs(case: Case, rng: np.random.Generator) -> Arrays:
    """Parameters by name, and sentences that all have full length: no side gets credit for skipping padding."""
    z = case.sizes
    arrays = {}
    for name, shape in reference_model.parameter_shapes(model_config(case)).items():
        bound = 1.0 if name.endswith("_embedding") else (z["H"] if ".bias" in name else shape[0]) ** -0.5
        if name.startswith("attention."):
            bound *= 4  # far from uniform weights, or the query's gradient is a sum that cancels to noise
        arrays[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    arrays |= {name: array for name, array in attentions.constants().items() if name in arrays}
    if case.section == "decode":
        arrays["output.bias"][END] = -1e9  # every sentence runs to the length limit
    arrays["source"] = rng.integers(4, z["V"], (z["B"], z["S"]))
    arrays["source_lengths"] = np.full(z["B"], z["S"], np.int64)
    arrays["target"] = rng.integers(4, z["V"], (z["B"], z["T"] + 1))
    arrays["target"][:, 0] = 1
    arrays["target_lengths"] = np.full(z["B"], z["T"] + 1, np.int64)
    if case.op == "oracle":
        links = rng.integers(0, z["S"], (z["B"], z["T"], 1))
        arrays["alignment"] = (np.arange(z["S"]) == links).astype(np.float32)
    return arrays


def work(case: Case, which: str) -> tuple[float, str]:
    """(operations, unit) of one call: FLOP of the products, or elements where a nonlinearity is the work.

    Backward of a product is two products. Masked positions are counted, as the peers compute them.
    """
    z, times = case.sizes, 1 if which in (FORWARD, "greedy") else 3
    if case.section == "scorings":
        return attentions.work(case.op, z, times)
    if case.section == "steps":
        return float(z["B"] * z["T"]), "tokens"
    match case.op:
        case "gemm":
            return 2.0 * z["M"] * z["N"] * z["K"], "FLOP"
        case "additive":
            return float(z["B"] * z["T"] * z["S"] * z["H"]), "el"
        case "scaled_dot":
            return 4.0 * times * z["B"] * z["T"] * z["S"] * z["H"], "FLOP"
        case "softmax":
            return float(z["B"] * z["T"] * z["S"]), "el"
        case "context":
            return 2.0 * times * z["B"] * z["T"] * z["S"] * z["D"], "FLOP"
        case "linear":
            return 2.0 * times * z["M"] * z["I"] * z["O"], "FLOP"
        case "output_loss":
            return 2.0 * times * z["N"] * z["E"] * z["V"], "FLOP"
    return times * _model_flops(case), "FLOP"


def _model_flops(case: Case) -> float:
    """Products of one forward pass: a multiply-add is two."""
    z = case.sizes
    E, H, G = z["E"], z["H"], reference_model.GATES[case.cell]
    per_source = 2 * (E + H) * G * H + 2 * H * H  # both directions, keys
    per_target = (E + 3 * H) * G * H + H * H + (E + 3 * H) * E + E * z["V"] + z["S"] * 2 * H
    return 2.0 * z["B"] * (z["S"] * per_source + z["T"] * per_target)
