"""The table [data]: how text files become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dhyan.options import Options, option

from .pairs import BAD_LINES, TAGS
from .vocabulary import KINDS, LEVELS, NORMALIZATIONS


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """How text becomes ids. levels: char, word or subword. columns: of a TSV, source and target, "1:2" or "1,2:3".
    tags: how the second of two source columns is split, see `two_column_tokens`.
    max_length: longer sentences (tokens) are left out of training and refused in translation.
    source_vocabulary, target_vocabulary: most ids kept, 0 is all; of subwords their number, 0 chooses it by the data.
    normalization: Unicode form of every text, see `vocabulary.normalize`.
    subword_model, byte_fallback: see `SubwordVocabulary`.
    """

    source_level: str = option("word", "char, word or subword", choices=LEVELS)
    target_level: str = option("word", "char, word or subword", choices=LEVELS)
    columns: str = option(
        "1:2", "source and target column of a TSV, such as 1:2; 1,2:3 joins two sources", expected="a text such as 1:2"
    )
    tags: str = option("features", "how the second of two source columns is split", choices=TAGS)
    bad_lines: str = option("error", "error, or skip and count", choices=BAD_LINES)
    source_vocabulary: int = option(0, "most source tokens kept, or subwords; 0: all, or as data allow")
    target_vocabulary: int = option(0, "the same of the target")
    min_count: int = option(1, "rarer tokens become unknown", low=1)
    normalization: str = option("nfc", "Unicode form of every text: nfc, nfkc or none", choices=NORMALIZATIONS)
    subword_model: str = option("unigram", "how subwords are learned: unigram or bpe", choices=KINDS)
    byte_fallback: bool = option(False, "subwords: unseen characters enter as bytes, not as unknown")
    max_length: int = option(500, "longer sentences (tokens) are left out", low=1)

    def __post_init__(self) -> None:
        self.check("DataConfig")
        if self.source_level == "subword" and "," in self.columns:
            raise ValueError(
                f"DataConfig: source_level is 'subword' with columns {self.columns!r}, expected one source column: two "
                "are joined as characters and tags"
            )

    @property
    def counted(self) -> dict[str, Any]:
        """levels and normalization, as `read_pairs` and `check_links` take them: in what gold links count."""
        return {"levels": (self.source_level, self.target_level), "normalization": self.normalization}
