"""Pieces of words, learned from text by sentencepiece (Kudo and Richardson 2018), with dhyan's ids.

``unigram`` (Kudo 2018) keeps the pieces under which the text is most probable, ``bpe`` (Sennrich et al. 2016) joins the
most frequent neighbours again and again. A piece that begins a word starts with the mark U+2581 (``▁``), which stands
for the white space before it; pieces lie within words. A text is normalised as the vocabulary says and its white space
(the mark counts as such) becomes single spaces; sentencepiece itself normalises nothing. So a text comes back from its
pieces as those words, joined by one space.

Training is a function of the texts: one thread, no random choice, and every character of them gets a piece.
"""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from dhyan.errors import DataError, unknown_name

from .vocabulary import BEGIN, END, KINDS, MARK, PAD, SPECIALS, UNKNOWN, Ids, Vocabulary, normalize, tokenize
from .words import Words

MOST_PIECES = 8000  # of a vocabulary whose size is not asked for
WORDS_PER_PIECE = 50
MAX_PIECE = 16  # characters of the longest piece, sentencepiece's default
MISSING = "subwords need sentencepiece: pip install 'dhyan[text]'"

_TOO_LARGE = re.compile(r"Vocabulary size too high \(\d+\). Please set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"Vocabulary size is smaller than required_chars. \d+ vs (\d+)")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class SubwordVocabulary(Ids):
    """The pieces of a sentencepiece model and their ids, with ids 0 to 3 for padding, begin, end and unknown.

    model: the serialised model. It serves where a `Vocabulary` does; ``level`` is ``subword``. A character that no
    piece covers enters as unknown, its neighbours that are not covered either with it; with byte fallback it enters as
    its UTF-8 bytes (pieces such as ``<0xE2>``), so nothing is unknown.

    Errors: DataError for bytes that are no model of this kind, ImportError without sentencepiece.
    """

    level = "subword"

    def __init__(self, model: bytes, normalization: str = "nfc", *, name: str = "subword model") -> None:
        normalize("", normalization)
        self.normalization, self._model = normalization, bytes(model)
        self._processor = _processor(self._model, name)
        size = self._processor.get_piece_size()
        try:
            self._tokens = tuple(str(self._processor.id_to_piece(i)) for i in range(size))
        except UnicodeDecodeError:
            raise DataError(f"{name}: a piece is no UTF-8 text") from None
        self._bytes = {self._tokens[i]: i for i in range(size) if self._processor.is_byte(i)}
        self._scores = tuple(float(self._processor.get_score(i)) for i in range(size))
        self._check(name)
        self._ids = {token: i for i, token in enumerate(self._tokens) if i >= len(SPECIALS)}

    def _check(self, name: str) -> None:
        for i, (expected, token) in enumerate(zip(SPECIALS, self._tokens, strict=False)):
            if token != expected or not (self._processor.is_control(i) or i == UNKNOWN):
                raise DataError(f"{name}: piece {i} is {token!r}, expected {expected!r}")
        if len(self) < len(SPECIALS) or self._processor.unk_id() != UNKNOWN:
            raise DataError(f"{name}: {len(self)} pieces, the unknown one {self._processor.unk_id()}, expected 3")
        if len(set(self._tokens)) < len(self):
            raise DataError(f"{name}: a piece stands at two ids")
        for i, (token, score) in enumerate(zip(self._tokens, self._scores, strict=True)):
            if not token or not math.isfinite(score):
                raise DataError(f"{name}: piece {i} is {token!r} with score {score}, expected text and a finite score")
        for token in self._bytes:
            if not _BYTE.fullmatch(token):
                raise DataError(f"{name}: the byte piece {token!r} is not of the form '<0x41>'")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        kind: str = "unigram",
        *,
        size: int = 0,
        byte_fallback: bool = False,
        normalization: str = "nfc",
        name: str = "the training data",
    ) -> SubwordVocabulary:
        """Learn a vocabulary of `size` pieces, special ones (and with byte_fallback the 256 bytes) included.

        size 0: as the data allow, one piece for every 50 words of text besides its characters, at most 8000 in all: so
        each piece is seen often enough to be learned (about what Gowda and May 2020 find best). Ctrl-C is honoured.
        Errors: DataError for a size that the data do not give, with the bound, and for texts without a character;
        ValueError for an unknown kind; ImportError without sentencepiece. name: of the data, for messages.
        """
        if kind not in KINDS:
            raise unknown_name("SubwordVocabulary.train: kind", kind, KINDS)
        lines = [_plain(text, normalization) for text in texts]
        characters = len({c for line in lines for c in line} - {" "})
        if not characters:
            raise DataError(f"{name}: no character to learn subwords from")
        # A line with U+2585, its sign for the unknown, is left out by sentencepiece as a whole.
        lines = [line.replace("\u2585", " ") for line in lines]
        # The text <pad> is a symbol to it, whose characters it does not count.
        lines = [line.replace("<pad>", "< pad>") for line in lines]
        words = sum(line.count(" ") + 1 for line in lines if line)
        least = len(SPECIALS) + 1 + characters + (256 if byte_fallback else 0)  # one for the mark
        options = {
            "model_type": kind,
            "vocab_size": size or max(least, min(MOST_PIECES, least + words // WORDS_PER_PIECE)),
            "byte_fallback": byte_fallback,
            "hard_vocab_limit": size > 0,
        }
        try:
            return cls(_interruptible(lambda: _train(lines, options)), normalization)
        except RuntimeError as error:
            raise DataError(f"{name}: {_problem(str(error), size, kind)}") from None

    @property
    def model(self) -> bytes:
        """The serialised sentencepiece model, which any of its tools reads."""
        return self._model

    def _key(self) -> tuple[object, ...]:
        return self.normalization, self._tokens, self._scores, tuple(self._bytes)

    def __repr__(self) -> str:
        return f"SubwordVocabulary({len(self)} pieces)"

    def tokenize(self, text: str | Sequence[str]) -> list[str]:
        if not isinstance(text, str):
            return list(text)
        return [str(piece) for piece in self._processor.encode(_plain(text, self.normalization), out_type=str)]

    def join(self, tokens: Iterable[str]) -> str:
        """The text that the pieces spell, words joined by one space; bytes that are no UTF-8 become U+FFFD."""
        return " ".join(self._spelled(tokens).split())

    def _spelled(self, tokens: Iterable[str]) -> str:
        parts: list[str] = []
        open_bytes = bytearray()
        for token in tokens:
            if token in self._bytes:
                open_bytes.append(int(token[3:5], 16))
                continue
            parts += [open_bytes.decode(errors="replace"), token.replace(MARK, " ")]
            open_bytes.clear()
        return "".join([*parts, open_bytes.decode(errors="replace")])

    def words_of(self, tokens: Sequence[str]) -> Words:
        """The words that the pieces are of: a piece with the mark begins one, unless the one before is still empty."""
        groups: list[list[str]] = []
        index = []
        for token in tokens:
            if not groups or (token.startswith(MARK) and self.join(groups[-1])):
                groups.append([])
            groups[-1].append(token)
            index.append(len(groups) - 1)
        if len(groups) > 1 and not self.join(groups[-1]):  # a mark that nothing follows ends the word before it
            last = len(groups) - 1
            groups[-2:] = [groups[-2] + groups[-1]]
            index = [min(word, last - 1) for word in index]
        return Words(tuple(map(self.join, groups)), tuple(index))

    def compared(self, tokens: Sequence[str]) -> list[str]:
        """What two piece sequences are compared by: their words, since one word can be cut in several ways."""
        return self.join(tokens).split()


AnyVocabulary = Vocabulary | SubwordVocabulary


def _plain(text: str, normalization: str) -> str:
    """What sentencepiece is given: normalised words and single spaces. Half a surrogate pair becomes "?"."""
    return " ".join(tokenize(text, "subword", normalization)).encode(errors="replace").decode()


def _library() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise ImportError(MISSING) from None
    return sentencepiece


def _processor(model: bytes, name: str) -> Any:
    processor = _library().SentencePieceProcessor()
    try:
        if not model or not processor.LoadFromSerializedProto(model):
            raise RuntimeError
    except (RuntimeError, UnicodeDecodeError):  # the second is of its message, which quotes a piece
        raise DataError(f"{name}: the bytes are no sentencepiece model") from None
    return processor


def _train(lines: Sequence[str], options: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    _library().SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, normalization_rule_name="identity",
        pad_id=PAD, bos_id=BEGIN, eos_id=END, unk_id=UNKNOWN,
        pad_piece=SPECIALS[PAD], bos_piece=SPECIALS[BEGIN], eos_piece=SPECIALS[END], unk_piece=SPECIALS[UNKNOWN],
        character_coverage=1.0, max_sentencepiece_length=MAX_PIECE, max_sentence_length=1 << 30,
        num_threads=1,  # its sums depend on the number
        minloglevel=2, **options,
    )  # fmt: skip
    return written.getvalue()


def _interruptible(work: Any) -> Any:
    """What work() returns, run beside the main thread, which so sees Ctrl-C while sentencepiece computes."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="dhyan-subwords", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
    if failed:
        raise failed[0]
    return done[0]


def _problem(message: str, size: int, kind: str) -> str:
    """sentencepiece's reason in our words."""
    large, small = _TOO_LARGE.search(message), _TOO_SMALL.search(message)
    if large:
        return f"they give at most {large[1]} subwords ({kind}), got a vocabulary size of {size}; 0 chooses one"
    if small:
        return f"their characters alone need {small[1]} subwords, got a vocabulary size of {size}; 0 chooses one"
    return f"sentencepiece learns nothing from them ({' '.join(message.split())[:120]})"
