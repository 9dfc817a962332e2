"""The table [data]: how text files become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dhyan.errors import check_integer, unknown_name
from dhyan.options import Options

from .pairs import TAGS
from .subword import KINDS
from .vocabulary import LEVELS, NORMALIZATIONS


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """How text becomes ids. levels: char, word or subword. columns: of a TSV, source and target, "1:2" or "1,2:3".
    tags: how the second of two source columns is split, see `two_column_tokens`.
    max_length: longer sentences (tokens) are left out of training and refused in translation.
    source_vocabulary, target_vocabulary: most ids kept, 0 is all; of subwords their number, 0 chooses it by the data.
    normalization: Unicode form of every text, see `vocabulary.normalize`.
    subword_model, byte_fallback: see `SubwordVocabulary`.
    """

    source_level: str = "word"
    target_level: str = "word"
    columns: str = "1:2"
    tags: str = "features"
    bad_lines: str = "error"
    source_vocabulary: int = 0
    target_vocabulary: int = 0
    min_count: int = 1
    max_length: int = 500
    normalization: str = "nfc"
    subword_model: str = "unigram"
    byte_fallback: bool = False

    def __post_init__(self) -> None:
        for name, valid in (
            ("source_level", LEVELS),
            ("target_level", LEVELS),
            ("bad_lines", ("error", "skip")),
            ("tags", TAGS),
            ("normalization", NORMALIZATIONS),
            ("subword_model", KINDS),
        ):
            if getattr(self, name) not in valid:
                raise unknown_name(f"DataConfig: {name}", getattr(self, name), valid)
        if not isinstance(self.byte_fallback, bool):
            raise TypeError(f"DataConfig: byte_fallback is {self.byte_fallback!r}, expected true or false")
        if not isinstance(self.columns, str):
            raise TypeError(f"DataConfig: columns is {self.columns!r}, expected a text such as 1:2")
        if self.source_level == "subword" and "," in self.columns:
            raise ValueError(
                f"DataConfig: source_level is 'subword' with columns {self.columns!r}, expected one source column: two "
                "are joined as characters and tags"
            )
        for name in ("source_vocabulary", "target_vocabulary"):
            check_integer("DataConfig", name, getattr(self, name), 0)
        for name in ("min_count", "max_length"):
            check_integer("DataConfig", name, getattr(self, name))

    @property
    def counted(self) -> dict[str, Any]:
        """levels and normalization, as `read_pairs` and `check_links` take them: in what gold links count."""
        return {"levels": (self.source_level, self.target_level), "normalization": self.normalization}
