"""Tokens and their ids.

A text is normalised (Unicode NFC unless told otherwise) and cut into tokens by the vocabulary's level:

* ``char``: one token per code point, so combining marks (Devanagari vowel signs, virama) survive a round trip;
* ``word``: the words between Unicode white space (``str.split``), joined again by one space;
* ``subword``: pieces of words, learned by sentencepiece: ``subword.SubwordVocabulary``.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dhyan.errors import DataError, unknown_name

SPECIALS = ("<pad>", "<begin>", "<end>", "<unk>")
PAD, BEGIN, END, UNKNOWN = range(4)
LEVELS = ("char", "word", "subword")
MARK = "\u2581"  # of a subword that begins a word; in a text it is white space to subwords
NORMALIZATIONS = ("nfc", "nfkc", "none")

_OWN_LEVELS = ("char", "word")
_HEADER = re.compile(r"dhyan-vocabulary 1 (char|word) ([0-9]{1,9})")
_ESCAPE = re.compile(r"\\(\\|u[0-9a-f]{4}|)")


def check_level(level: str, levels: Sequence[str] = LEVELS) -> None:
    """Raise ValueError unless level is one of levels."""
    if level not in levels:
        raise ValueError(f"vocabulary level is {level!r}, expected one of {', '.join(levels)}")


def normalize(text: str, normalization: str = "nfc") -> str:
    """The text in a Unicode normal form (Unicode Standard Annex 15), by which texts that look the same become equal.

    nfc: canonical composition, which keeps every distinction one can see; nfkc: also compatibility forms, so that wide
    letters, ligatures and superscripts become plain ones; none: the text as it is. Errors: ValueError for other names.
    """
    if normalization not in NORMALIZATIONS:
        raise unknown_name("normalization", normalization, NORMALIZATIONS)
    if normalization == "none":
        return text
    return unicodedata.normalize("NFC" if normalization == "nfc" else "NFKC", text)


def tokenize(text: str, level: str, normalization: str = "nfc") -> list[str]:
    """Tokens of the normalised text: its code points (char) or its white-space separated words (word).

    Of subwords these are the words they are pieces of.
    """
    check_level(level)
    text = normalize(text, normalization)
    if level == "char":
        return list(text)
    return text.replace(MARK, " ").split() if level == "subword" else text.split()


class Ids(ABC):
    """A bijection between tokens and ids: what every vocabulary is, however it cuts a text."""

    level: str
    normalization: str
    _tokens: tuple[str, ...]  # by id, the special ones first
    _ids: dict[str, int]  # of the ordinary ones

    @abstractmethod
    def tokenize(self, text: str | Sequence[str]) -> list[str]:
        """Tokens of a text; a sequence that is cut already comes back as a list."""

    @abstractmethod
    def join(self, tokens: Iterable[str]) -> str:
        """The text that the tokens spell."""

    @abstractmethod
    def _key(self) -> tuple[object, ...]:
        """What two vocabularies of one class are equal by."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """tokens[id] is the token of that id, special tokens included."""
        return self._tokens

    def __len__(self) -> int:
        """The number of ids, special ones included: V."""
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def encode(self, text: str | Sequence[str]) -> list[int]:
        """Ids of the text's tokens, 3 where a token is unknown; no begin or end symbol is added."""
        return [self._ids.get(token, UNKNOWN) for token in self.tokenize(text)]

    def tokens_of(self, ids: Iterable[int]) -> list[str]:
        """Tokens of ids up to the first end symbol, padding and begin symbols left out.

        Errors: IndexError with the position of an id outside the vocabulary.
        """
        found = []
        for position, token_id in enumerate(ids):
            if not 0 <= token_id < len(self):
                raise IndexError(f"decode: ids[{position}] is {token_id}, expected 0 <= id < {len(self)}")
            if token_id == END:
                break
            if token_id not in (PAD, BEGIN):
                found.append(self._tokens[token_id])
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: ``join(tokens_of(ids))``."""
        return self.join(self.tokens_of(ids))


class Vocabulary(Ids):
    """A bijection between tokens and ids, with ids 0 to 3 for padding, begin, end and unknown.

    ``tokens`` are the ordinary tokens, without the special ones, in the order of their ids from 4 on. A text can
    never produce a special id other than unknown: the word ``<end>`` in a text is an ordinary token or unknown.
    Where a text is expected, a sequence of tokens made elsewhere may stand (``pairs.Pair.source_tokens``).
    level: ``char`` or ``word``; normalization: that of every text it is asked about.

    Errors: ValueError for an unknown level or normalization and for empty or repeated tokens or tokens that are not
    Unicode text.
    """

    def __init__(self, tokens: Sequence[str], level: str, normalization: str = "nfc") -> None:
        check_level(level, _OWN_LEVELS)
        normalize("", normalization)
        if isinstance(tokens, str):
            raise TypeError("Vocabulary: tokens is a str, expected a sequence of str")
        self.level, self.normalization = level, normalization
        self._tokens = (*SPECIALS, *tokens)
        self._ids: dict[str, int] = {}
        for token_id, token in enumerate(self._tokens[len(SPECIALS) :], len(SPECIALS)):
            _check_token(token, token_id)
            if self._ids.setdefault(token, token_id) != token_id:
                raise ValueError(f"Vocabulary: token {token!r} stands at ids {self._ids[token]} and {token_id}")

    @classmethod
    def build(
        cls,
        texts: Iterable[str | Sequence[str]],
        level: str,
        *,
        max_size: int | None = None,
        min_count: int = 1,
        normalization: str = "nfc",
    ) -> Vocabulary:
        """The vocabulary of texts: tokens seen at least min_count times, most frequent first, ties by code point.

        max_size bounds ``len(vocabulary)``, special tokens included; None is no bound.
        """
        check_level(level, _OWN_LEVELS)
        if max_size is not None and max_size < len(SPECIALS):
            raise ValueError(f"Vocabulary.build: max_size is {max_size}, expected at least {len(SPECIALS)}")
        if min_count < 1:
            raise ValueError(f"Vocabulary.build: min_count is {min_count}, expected at least 1")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(tokenize(text, level, normalization) if isinstance(text, str) else text)
        kept = sorted((-count, token) for token, count in counts.items() if count >= min_count)
        room = None if max_size is None else max_size - len(SPECIALS)
        return cls([token for _, token in kept[:room]], level, normalization)

    def _key(self) -> tuple[object, ...]:
        return self.level, self.normalization, self._tokens

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, level={self.level!r})"

    def tokenize(self, text: str | Sequence[str]) -> list[str]:
        return tokenize(text, self.level, self.normalization) if isinstance(text, str) else list(text)

    def join(self, tokens: Iterable[str]) -> str:
        return ("" if self.level == "char" else " ").join(tokens)

    def words_of(self, tokens: Sequence[str]) -> None:
        """None: these tokens are no pieces of words (``SubwordVocabulary.words_of``)."""
        return None

    def compared(self, tokens: Sequence[str]) -> list[str]:
        """What two token sequences are compared by: the tokens."""
        return list(tokens)

    def to_text(self) -> str:
        r"""A header line, then one ordinary token a line; white space, controls and ``\`` are written ``\u0020``."""
        tokens = self._tokens[len(SPECIALS) :]
        return "".join([f"dhyan-vocabulary 1 {self.level} {len(tokens)}\n", *(_escape(t) + "\n" for t in tokens)])

    @classmethod
    def from_text(cls, text: str, name: str = "vocabulary", normalization: str = "nfc") -> Vocabulary:
        """The inverse of to_text, which leaves normalization out. Errors: DataError naming name and line."""
        lines = text.split("\n")
        header = _HEADER.fullmatch(lines[0])
        if header is None:
            raise DataError(f"{name}:1: got {lines[0][:60]!r}, expected 'dhyan-vocabulary 1 LEVEL COUNT'")
        level, count = header[1], int(header[2])
        if len(lines) != count + 2 or lines[-1]:
            raise DataError(f"{name}: holds {len(lines) - 2} whole tokens, expected {count} as line 1 says")
        try:
            tokens = [_unescape(line, name, number) for number, line in enumerate(lines[1:-1], 2)]
            return cls(tokens, level, normalization)
        except ValueError as error:
            raise error if isinstance(error, DataError) else DataError(f"{name}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write to_text() to a UTF-8 file."""
        Path(path).write_bytes(self.to_text().encode())

    @classmethod
    def load(cls, path: str | Path, normalization: str = "nfc") -> Vocabulary:
        """Read a file that save wrote. Errors: DataError; OSError where the file cannot be read."""
        try:
            return cls.from_text(Path(path).read_bytes().decode(), str(path), normalization)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: byte {error.start} is not UTF-8") from None


def _check_token(token: object, token_id: int) -> None:
    if not isinstance(token, str):
        raise TypeError(f"Vocabulary: token {token_id} is a {type(token).__name__}, expected str")
    if not token:
        raise ValueError(f"Vocabulary: token {token_id} is empty")
    if not _is_encodable(token):
        raise ValueError(f"Vocabulary: token {token_id} {token!r} holds a lone surrogate, expected Unicode text")


def _is_encodable(token: str) -> bool:
    try:
        token.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(token: str) -> str:
    # Every white space and control character known to Unicode lies in the basic plane: four digits are enough.
    return "".join(
        "\\\\" if c == "\\" else f"\\u{ord(c):04x}" if c.isspace() or unicodedata.category(c) == "Cc" else c
        for c in token
    )


def _unescape(line: str, name: str, number: int) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match[1]
        if not code:
            raise DataError(f"{name}:{number}: unknown escape in {line[:60]!r}, expected \\\\ or \\u and four digits")
        return "\\" if code == "\\" else chr(int(code[1:], 16))

    return _ESCAPE.sub(replace, line)
