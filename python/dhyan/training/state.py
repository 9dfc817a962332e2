"""The state of a training run, beside its weights and moments, and what it must find unchanged to go on exactly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dhyan.errors import CheckpointError
from dhyan.text.encoded import Encoded


@dataclass
class Progress:
    """Where a run stands; together with weights and moments all there is to resume from."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already learned from
    step: int = 0
    lr: float = 0.0
    best_error: float = math.inf  # of the selection rule
    best_loss: float = math.inf
    waited: int = 0  # validations since the error last fell
    loss_sum: float = 0.0  # of this epoch, over its tokens
    tokens: int = 0
    seconds: float = 0.0
    validated: int = 0  # the step of the last validation that counts
    optimizer_steps: int = 0
    run: dict[str, str] = field(default_factory=dict)  # what must be found unchanged: name -> digest or name
    report: dict[str, Any] = field(default_factory=dict)  # the last validation, as log.jsonl has it

    def to_dict(self) -> dict[str, Any]:
        """Field name -> value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Progress:
        """Of what to_dict gave, null for infinity. A run of format version 1 lacks the last fields but the steps.

        Errors: CheckpointError naming `where` and the field that is missing, unknown, of another type or out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        optional = ("validated", "run", "report")
        for name in [*values, *fields]:
            if name not in fields:
                raise CheckpointError(f"{where}: unknown key {name[:60]!r}")
            if name not in values and name not in optional:
                raise CheckpointError(f"{where}: {name} is missing")
        checked = {name: _checked(name, value, str(fields[name].type), where) for name, value in values.items()}
        return cls(**checked)


def _checked(name: str, value: Any, kind: str, where: str) -> Any:
    if kind == "int" and (type(value) is int and 0 <= value < 1 << 63):
        return value
    if kind == "float":
        if value is None and name.startswith("best_"):  # nothing was measured yet
            return math.inf
        small = type(value) is int and abs(value) < 1 << 53
        if (small or type(value) is float) and math.isfinite(value) and (name != "lr" or value > 0):
            return float(value)
    is_table = kind.startswith("dict") and isinstance(value, dict)
    if is_table and (name != "run" or all(isinstance(text, str) for text in value.values())):
        return value
    expected = {"int": "an integer from 0 on", "float": "a finite number"}.get(kind, "a table")
    if name == "lr":
        expected = "a positive finite number"
    raise CheckpointError(f"{where}: {name} is {str(value)[:60]!r}, expected {expected}")


def fingerprint(examples: Encoded, texts: Sequence[str] = ()) -> str:
    """SHA-256 of all that training reads of the examples, in their order, and of these texts."""
    digest = hashlib.sha256(json.dumps(list(texts)).encode())
    parts = (examples.source, examples.target, examples.links, examples.copies, examples.own)
    for part in parts:
        for row in part or ():
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()
