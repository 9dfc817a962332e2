"""The tools that no other test runs: what the fingerprints of weights see, and what they do not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]


def test_a_digest_is_of_the_numbers_and_their_names(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("fingerprint", ROOT / "tools" / "fingerprint.py")
    assert spec is not None and spec.loader is not None
    fingerprint = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fingerprint)
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)}

    def digest(arrays: dict[str, np.ndarray], **metadata: str) -> str:
        save_file(arrays, tmp_path / "x.safetensors", metadata)
        return fingerprint.weights_digest(tmp_path / "x.safetensors")

    one = digest(weights)
    assert digest(weights, version="2") == one
    nearby = weights["a"].copy()
    nearby[1, 2] = np.nextafter(nearby[1, 2], np.float32(9))
    others = [
        {**weights, "a": nearby},
        {**weights, "a": weights["a"].reshape(3, 2)},
        {"c": weights["a"], "b": weights["b"]},
    ]
    assert one not in map(digest, others)
    fingerprint.write_pairs(tmp_path / "pairs.tsv", 3, 2)
    assert (tmp_path / "pairs.tsv").read_text() == "two three seven five seven\tsieben fuenf sieben drei zwei\n" + (
        "three one six seven six\tsechs sieben sechs eins drei\n"
    )
