"""What a run learns from: pairs read and checked, batches of ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dhyan import DataConfig, DataError, ModelConfig
from dhyan.text.encoded import Encoded, pairs_of, vocabularies
from dhyan.text.pairs import Pair
from dhyan.training.data import positions_of

PAIRS = [Pair("a b c", "x"), Pair("a", "x y"), Pair("a b", "y x z", ((0, 1, True),))]
CONFIG = ModelConfig(source_size=4, target_size=4, attention="location")


def test_pairs_come_from_a_list_or_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pairs_of(tuple(PAIRS), DataConfig(), "training") == PAIRS
    path = tmp_path / "a.tsv"
    path.write_text("a b\tx\nno tab\nb\ty\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.tsv:2"):
        pairs_of(path, DataConfig(), "training")
    assert [p.source for p in pairs_of(str(path), DataConfig(bad_lines="skip"), "training")] == ["a b", "b"]
    assert "1 bad lines skipped" in capsys.readouterr().err
    with pytest.raises(DataError, match="the validation data hold no pair"):
        pairs_of([], DataConfig(), "validation")


def test_encoded_examples_make_batches() -> None:
    encoded = Encoded.of(PAIRS, *vocabularies(PAIRS, DataConfig()), links=True)
    assert len(encoded) == 3 and [a.tolist() for a in encoded.lengths()] == [[3, 1, 2], [1, 2, 3]]
    batch = encoded.batch(np.array([2, 1]))
    assert batch.source_lengths.tolist() == [3, 2] and batch.target_lengths.tolist() == [5, 4]
    assert batch.alignment is not None and batch.alignment[0, 1, 0] == 1 and batch.alignment.sum() == 1


def test_tokens_are_encoded_as_their_texts_are() -> None:
    """For training, for search, and where words of the source may be copied."""
    source, target = vocabularies(PAIRS, DataConfig())
    tokens = [source.tokenize(p.source) for p in PAIRS], [target.tokenize(p.target) for p in PAIRS]
    for copy in (False, True):
        whole, parts = (
            Encoded.of(PAIRS, source, target, copy=copy),
            Encoded.of_tokens(*tokens, source, target, copy=copy),
        )
        assert (whole.source, whole.target, whole.copies, whole.own) == (
            parts.source, parts.target, parts.copies, parts.own,
        )  # fmt: skip
        ids, lengths, copies = parts.sources([1, 0])
        batch = whole.batch([1, 0])
        assert ids.tolist() == batch.source.tolist() and lengths.tolist() == batch.source_lengths.tolist()
        assert (copies is None) == (batch.copies is None) == (not copy)
        if copies is not None and batch.copies is not None:
            assert copies.tolist() == batch.copies.tolist()
    assert parts.own is not None and any(parts.own)


def test_location_takes_the_longest_source() -> None:
    source, _ = vocabularies(PAIRS, DataConfig())
    assert positions_of(CONFIG, source, PAIRS) == 4
    assert positions_of(ModelConfig(source_size=4, target_size=4, max_source=2), source, PAIRS) == 2
