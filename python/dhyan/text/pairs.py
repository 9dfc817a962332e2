"""Reading parallel text: TSV files, pairs of line files, gold alignment links.

Every problem is one DataError that names file and line. A line ends at a line feed (a carriage return before it is
dropped), never at U+2028 and the like; a byte-order mark is dropped; names that end in ``.gz`` are read through gzip.
Memory is bounded: a line longer than MAX_LINE_BYTES is refused without being read whole.

Bad lines: with ``bad_lines="error"`` the first one raises. With ``"skip"`` it is left out (from both sides of a
pair) and its message is appended to the caller's ``skipped`` list, so ``len(skipped)`` is the count.
"""

from __future__ import annotations

import gzip
import math
import re
import statistics
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, cast

from dhyan.errors import DataError, unknown_name

from .vocabulary import check_level, normalize, tokenize

BAD_LINES = ("error", "skip")

MAX_LINE_BYTES = 1 << 20

Links = tuple[tuple[int, int, bool], ...]

TAGS = ("features", "commas")  # how the second of two source columns is split
LINK_SHARE = 0.5  # of the filled third columns: where more than this are gold links, one that is none is a mistake

_BETWEEN_TAGS = re.compile(r"[,;()]")
_LINK = re.compile(r"([0-9]+)([-?])([0-9]+)")
_COLUMNS = re.compile(r"([1-9][0-9]{0,3})(?:,([1-9][0-9]{0,3}))?:([1-9][0-9]{0,3})")
_MAX_LINK_DIGITS = 9
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY")


@dataclass(frozen=True)
class Pair:
    """One example: a source text, its target text and, where the file has them, gold links (source, target, sure).

    links count tokens from 0. None means that no gold links are known; () means that nothing is linked.
    source_tokens is set only when the source came from two columns; it then replaces the tokens of source.
    line: of the file it was read from, counted from 1, for messages; two pairs are equal wherever they stood.
    """

    source: str
    target: str
    links: Links | None = None
    source_tokens: tuple[str, ...] | None = None
    line: int | None = field(default=None, compare=False, repr=False)

    @property
    def source_input(self) -> str | tuple[str, ...]:
        """What a vocabulary should encode: the tokens made from two columns, else the source text."""
        return self.source if self.source_tokens is None else self.source_tokens


@dataclass(frozen=True)
class Line:
    """One line of a file: its number from 1, and its text or else the problem with it."""

    number: int
    text: str
    problem: str | None = None


def two_column_tokens(text: str, normalization: str = "nfc", tags: str = "features") -> tuple[str, ...]:
    """Tokens of ``first TAB second``: the characters of the first column, then the tags of the second.

    This is the form of inflection data: ``fijar TAB pos=V,per=1`` gives f i j a r [pos=V] [per=1], and UniMorph's
    ``ev TAB N;NOM(2,PL)`` gives e v [N] [NOM] [2] [PL]: tags stand between commas, semicolons and round brackets. A tag
    is written in square brackets, so that it is never the same token as a letter. tags="commas" is what models of
    version 0.1 learned from: split at commas only, without brackets. Both columns are normalised (`normalize`) and
    stripped; empty tags are left out. The same function serves training files (``--columns 1,2:3``) and a line to
    translate.

    Errors: DataError unless there are two filled columns; ValueError for another name of tags.
    """
    if tags not in TAGS:
        raise unknown_name("tags", tags, TAGS)
    columns = [column.strip() for column in normalize(text, normalization).split("\t")]
    if len(columns) != 2 or not all(columns):
        raise DataError(f"source {_short(text)} has {len(columns)} columns, expected two filled ones and one TAB")
    if tags == "commas":
        return (*columns[0], *(tag.strip() for tag in columns[1].split(",") if tag.strip()))
    return (*columns[0], *(f"[{tag.strip()}]" for tag in _BETWEEN_TAGS.split(columns[1]) if tag.strip()))


def parse_links(text: str) -> Links | None:
    """Gold links in Pharaoh form, ``i-j`` sure and ``i?j`` possible; None where an item is not of that form."""
    links = []
    for item in text.split():
        match = _LINK.fullmatch(item)
        if match is None:
            return None
        links.append((_index(match[1]), _index(match[3]), match[2] == "-"))
    return tuple(links)


def _index(digits: str) -> int:
    """The number, or where it is too long for an index (or for int), one that every range check refuses."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_LINK_DIGITS else 10**_MAX_LINK_DIGITS


def check_links(
    pairs: Iterable[Pair],
    name: str,
    why: str,
    *,
    levels: tuple[str, str] = ("word", "word"),
    normalization: str = "nfc",
    every: bool = True,
) -> None:
    """Raise DataError unless the pairs have gold links inside their sentences: all of them, or with every=False any.

    name: of the file or the data, begins the message; why: who needs the links. levels, normalization: as read_pairs.
    """
    tokens, linked = _Tokens(levels, normalization), 0
    for number, pair in enumerate(pairs):
        where = f"{name}: pair {number}:" if pair.line is None else f"{name}:{pair.line}:"
        if pair.links is None:
            if every:
                raise DataError(f"{where} no gold links, expected only items i-j or i?j in the third column; {why}")
            continue
        linked += 1
        problem = _problem_of_links(pair.links, pair, tokens)
        if problem:
            raise DataError(f"{where} {problem}")
    if not linked and not every:
        raise DataError(f"{name}: no pair has gold links, expected only items i-j or i?j in the third column; {why}")


def read_lines(path: str | Path, *, bad_lines: str = "error", skipped: list[str] | None = None) -> list[str]:
    """The lines of a text file; blank ones are kept as they are. Errors: DataError as the module describes."""
    keep = _Policy(bad_lines, skipped)
    lines = [line.text for line in scan_file(path) if keep(line.problem, path, line.number)]
    if not lines:
        raise DataError(f"{path}: no usable line ({keep.count} bad lines skipped)")
    return lines


def read_pairs(
    path: str | Path,
    target_path: str | Path | None = None,
    *,
    columns: str = "1:2",
    bad_lines: str = "error",
    skipped: list[str] | None = None,
    levels: tuple[str, str] = ("word", "word"),
    normalization: str = "nfc",
    tags: str = "features",
    notes: list[str] | None = None,
) -> list[Pair]:
    """Pairs from one TSV file, or line by line from a source and a target file.

    columns: ``SOURCE:TARGET`` or ``SOURCE,SOURCE:TARGET``, counted from 1 (TSV only); further columns are ignored.
    Fields are stripped of surrounding white space; there is no quoting. With columns ``1:2`` (or ``2:1``, which
    swaps them) the third column is read as gold links (``parse_links``) where more than half of those that are filled
    are links; one that is not is then a bad line. Otherwise it is left aside, which is said in ``notes``. Rows without
    that column have ``links=None``.
    levels: in whose tokens the links of source and target count, ``char`` or ``word`` (words also for ``subword``).
    normalization: the Unicode form (`normalize`) of two joined sources, and in which links count tokens. tags: how the
    second of two sources is split, see `two_column_tokens`. notes: what a user should know is appended to it.

    Errors: DataError for an unusable file, line, empty side, missing column, unequal line counts or a link outside
    the sentence; ValueError for a malformed columns, bad_lines, level or normalization.
    """
    keep = _Policy(bad_lines, skipped)
    counted = _Tokens(levels, normalization)
    if target_path is not None:
        pairs = _join_files(path, target_path, keep)
    else:
        pairs = _split_rows(path, _parse_columns(columns), counted, keep, tags, notes)
    if not pairs:
        raise DataError(f"{path}: no usable pair ({keep.count} bad lines skipped)")
    return pairs


def scan_file(path: str | Path) -> Iterator[Line]:
    """Lines of a file, each with its problem if it has one. Errors: DataError for what makes the file unusable."""
    path = Path(path)
    with _open(path) as stream:
        yield from scan_stream(stream, str(path))


def scan_stream(stream: IO[bytes], name: str) -> Iterator[Line]:
    """Lines of an open binary stream (standard input, say), one at a time, in memory of one longest line.

    Errors: DataError for an empty stream and for one whose first bytes are of a compressed or UTF-16 file.
    """
    raw = stream.readline(MAX_LINE_BYTES + 2)
    _check_start(raw, name)
    raw = raw.removeprefix(_BYTE_ORDER_MARK)
    if not raw:
        raise DataError(f"{name}: the file is empty, expected lines of text")
    number = 1
    while raw:
        yield _decode(raw, number)
        while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):  # the rest of a line that is too long
            raw = stream.readline(MAX_LINE_BYTES + 2)
        raw = stream.readline(MAX_LINE_BYTES + 2)
        number += 1


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    zipped = path.suffix == ".gz"
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a text file")
    try:
        with cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: named .gz but not readable as gzip ({error})") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged or cut short ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _check_start(raw: bytes, name: str) -> None:
    """Refuse what is not UTF-8 text from its first line on: compressed files and UTF-16 or UTF-32."""
    if raw.startswith(_COMPRESSED):
        raise DataError(f"{name}: compressed? expected UTF-8 text, or gzip under a name that ends in .gz")
    # Without a mark, UTF-16 of Latin text has a NUL in every other byte.
    halves = raw[0:64:2], raw[1:64:2]
    if raw.startswith(_UTF16_MARKS) or (len(raw) >= 4 and any(halves[0]) != any(halves[1])):
        raise DataError(f"{name}: UTF-16 or UTF-32 text, expected UTF-8 (convert it: iconv -f UTF-16 -t UTF-8)")


def _decode(raw: bytes, number: int) -> Line:
    line = raw.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) > MAX_LINE_BYTES:
        return Line(number, "", f"the line is longer than the limit of {MAX_LINE_BYTES} bytes")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Line(number, "", f"{error.start + 1}: byte 0x{line[error.start]:02x} is not valid UTF-8")
    for byte, name in ((b"\0", "NUL"), (b"\r", "a carriage return")):
        if byte in line:
            return Line(number, "", f"{line.index(byte) + 1}: {name} inside the line")
    return Line(number, text)


class _Policy:
    """What to do with a bad line; called for every line, True where the line is to be kept."""

    def __init__(self, bad_lines: str, skipped: list[str] | None) -> None:
        if bad_lines not in BAD_LINES:
            raise ValueError(f"bad_lines is {bad_lines!r}, expected error or skip")
        self.raises = bad_lines == "error"
        self.skipped = skipped
        self.count = 0

    def __call__(self, problem: str | None, path: str | Path, number: int) -> bool:
        if problem is None:
            return True
        # A problem that names a byte starts with it, so that the message reads file:line:byte.
        message = f"{path}:{number}:{'' if problem[0].isdigit() else ' '}{problem}"
        if self.raises:
            raise DataError(message)
        self.count += 1
        if self.skipped is not None:
            self.skipped.append(message)
        return False


@dataclass(frozen=True)
class _Tokens:
    """What the links of source and target count."""

    levels: tuple[str, str]
    normalization: str

    def __post_init__(self) -> None:
        for level in self.levels:
            check_level(level)
        normalize("", self.normalization)

    def count(self, text: str | tuple[str, ...], side: int) -> int:
        return len(tokenize(text, self.levels[side], self.normalization) if isinstance(text, str) else text)


def _join_files(source_path: str | Path, target_path: str | Path, keep: _Policy) -> list[Pair]:
    sources, targets = list(scan_file(source_path)), list(scan_file(target_path))
    if len(sources) != len(targets):
        number, why = _first_suspicious(sources, targets)
        raise DataError(
            f"{source_path} has {len(sources)} lines and {target_path} has {len(targets)}, expected the same number; "
            f"first suspicious line: {number} ({why})"
        )
    pairs = []
    for source, target in zip(sources, targets, strict=True):
        # Both are judged before the pair is left out, or one bad line would shift the rest of the file.
        if keep(_problem_of(source), source_path, source.number) and keep(
            _problem_of(target), target_path, target.number
        ):
            pairs.append(Pair(source.text.strip(), target.text.strip(), line=source.number))
    return pairs


def _problem_of(line: Line) -> str | None:
    return line.problem or (None if line.text.strip() else "the line is empty, expected text on both sides of a pair")


def _first_suspicious(sources: list[Line], targets: list[Line]) -> tuple[int, str]:
    """Where two files of unequal length lost step: a line that is bad on one side, else the best cut by lengths.

    The cut is the line before which the files are paired as they stand, and after which the longer one runs ahead by
    the surplus, such that the log ratios of the paired lengths differ least from the usual one.
    """
    for source, target in zip(sources, targets, strict=False):
        problems = _problem_of(source), _problem_of(target)
        if (problems[0] is None) != (problems[1] is None):
            return source.number, f"source: {problems[0]}" if problems[0] else f"target: {problems[1]}"
    longer, shorter = (
        [math.log(len(line.text) + 1) for line in side] for side in sorted((sources, targets), key=len, reverse=True)
    )
    surplus = len(longer) - len(shorter)
    usual = statistics.median(longer) - statistics.median(shorter)
    before = [abs(a - b - usual) for a, b in zip(longer, shorter, strict=False)]
    after = [abs(a - b - usual) for a, b in zip(longer[surplus:], shorter, strict=True)]
    cost = best = sum(after)
    cut = 0
    for line, (stays, shifts) in enumerate(zip(before, after, strict=True), 1):
        cost += stays - shifts
        if cost <= best + 1e-9:
            best, cut = cost, line
    side = "source" if len(sources) > len(targets) else "target"
    return cut + 1, f"from there on the lengths fit best with {surplus} {side} lines left out"


def _parse_columns(columns: str) -> tuple[tuple[int, ...], int]:
    match = _COLUMNS.fullmatch(columns)
    if match is None:
        raise ValueError(f"columns is {columns!r}, expected SOURCE:TARGET or SOURCE,SOURCE:TARGET such as 1:2 or 1,2:3")
    return tuple(int(column) - 1 for column in match.groups()[:2] if column), int(match[3]) - 1


def _split_rows(
    path: str | Path,
    columns: tuple[tuple[int, ...], int],
    counted: _Tokens,
    keep: _Policy,
    tags: str,
    notes: list[str] | None,
) -> list[Pair]:
    source_columns, target_column = columns
    has_link_column = sorted((*source_columns, target_column)) == [0, 1]
    rows: list[Pair] = []
    third: list[str | None] = []
    for line in scan_file(path):
        if not keep(line.problem, path, line.number):
            continue
        fields = [field.strip() for field in line.text.split("\t")]
        if not keep(_problem_of_fields(fields, source_columns, target_column), path, line.number):
            continue
        source = "\t".join(fields[column] for column in source_columns)
        tokens = two_column_tokens(source, counted.normalization, tags) if len(source_columns) == 2 else None
        rows.append(Pair(source, fields[target_column], None, tokens, line.number))
        third.append(fields[2] if has_link_column and len(fields) > 2 else None)
    links = [None if text is None else parse_links(text) for text in third]
    filled = [i for i, text in enumerate(third) if text]
    if sum(links[i] is not None for i in filled) <= LINK_SHARE * len(filled):
        if filled and notes is not None:
            i = next(i for i in filled if links[i] is None)
            notes.append(
                f"{path}: the third column is left aside: line {rows[i].line} holds {_short(third[i] or '')}, which is "
                "no gold link i-j"
            )
        return rows
    linked = (
        (pair, row)
        for pair, row, text in zip(rows, links, third, strict=True)
        if keep(_problem_of_third(text) if row is None and text else None, path, pair.line or 0)
    )
    return list(_attach_links(linked, source_columns == (1,), counted, path, keep))


def _problem_of_fields(fields: list[str], source_columns: tuple[int, ...], target_column: int) -> str | None:
    needed = max(*source_columns, target_column) + 1
    if fields == [""]:
        return "the line is empty, expected columns separated by TAB"
    if len(fields) < needed:
        return f"the line has {len(fields)} columns separated by TAB, expected at least {needed}"
    for side, columns in (("source", source_columns), ("target", (target_column,))):
        for column in columns:
            if not fields[column]:
                return f"the {side} side (column {column + 1}) is empty"
    return None


def _problem_of_third(text: str) -> str:
    item = next(item for item in text.split() if _LINK.fullmatch(item) is None)
    return f"{_short(item)} in the third column is no gold link i-j or i?j, as most of the other lines hold there"


def _attach_links(
    linked: Iterable[tuple[Pair, Links | None]],
    is_swapped: bool,
    tokens: _Tokens,
    path: str | Path,
    keep: _Policy,
) -> Iterator[Pair]:
    for pair, row in linked:
        if row is not None and is_swapped:
            row = tuple((target, source, sure) for source, target, sure in row)
        if row is None or keep(_problem_of_links(row, pair, tokens), path, pair.line or 0):
            yield replace(pair, links=row)


def _problem_of_links(links: Links, pair: Pair, tokens: _Tokens) -> str | None:
    sizes = tokens.count(pair.source_input, 0), tokens.count(pair.target, 1)
    for source, target, _ in links:
        for side, index, size in (("source", source, sizes[0]), ("target", target, sizes[1])):
            if not 0 <= index < size:
                return (
                    f"a link names {side} token {index}, but the {side} has {size} tokens (counted from 0); where the "
                    "third column holds something else, leave it out (cut -f1,2)"
                )
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
