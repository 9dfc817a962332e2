"""Reading text: every bad input is one line that names file and line, and nothing else is refused."""

import gzip
import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from dhyan.errors import DataError
from dhyan.text import pairs as data
from dhyan.text.pairs import Pair, check_links, parse_links, read_lines, read_pairs, scan_stream, two_column_tokens
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def write(tmp_path):
    def write(content, name="f.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(message, function, *arguments, **options):
    """The call raises DataError with this text, in one line."""
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_tsv(write):
    assert read_pairs(write("मैं\tI\nतू घर\tyou go\n")) == [Pair("मैं", "I"), Pair("तू घर", "you go")]


def test_line_files(write):
    pairs = read_pairs(write("a b\nc\n", "s"), write("x\n y \n", "t"))
    assert pairs == [Pair("a b", "x"), Pair("c", "y")]


@pytest.mark.parametrize(
    "content",
    [
        b"a\tx\nb\ty\n",
        b"a\tx\nb\ty",  # no newline at the end
        b"a\tx\r\nb\ty\r\n",
        b"a\tx\r\nb\ty\n",
        b"\xef\xbb\xbfa\tx\nb\ty\n",
        b" a\tx \nb \t y\tmore\tcolumns\n",
    ],
)
def test_harmless_variants_read_the_same(write, content):
    assert read_pairs(write(content)) == [Pair("a", "x"), Pair("b", "y")]


def test_gzip_is_read_by_name(write):
    assert read_pairs(write(gzip.compress(b"a\tx\n"), "f.tsv.gz")) == [Pair("a", "x")]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_only_a_line_feed_ends_a_line(write, mark):
    assert read_pairs(write(f"a{mark}b\tx{mark}y\n")) == [Pair(f"a{mark}b", f"x{mark}y")]
    assert read_lines(write(f"a{mark}b\nc\n")) == [f"a{mark}b", "c"]


def test_missing_folder_and_empty(write, tmp_path):
    refused("nowhere: no such file", read_pairs, tmp_path / "nowhere")
    refused("is a folder", read_pairs, tmp_path)
    refused("the file is empty", read_pairs, write(b""))
    refused("the file is empty", read_pairs, write(b"\xef\xbb\xbf"))
    refused("the file is empty", read_pairs, write(gzip.compress(b""), "f.gz"))
    refused("cannot be read (Not a directory)", read_pairs, write("a\tb\n") / "inside")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_called_by_name(write, encoding):
    refused("UTF-16", read_pairs, write("some text\tmore\n".encode(encoding)))
    refused("UTF-16", read_lines, write("some text\tmore\n".encode(encoding)), bad_lines="skip")


def test_compressed_files_are_called_by_name(write):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", "a\tx\n")
    for content in (gzip.compress(b"a\tx\n"), packed.getvalue(), b"BZh91AY&SYxyz", b"\xfd7zXZ\0\n"):
        refused("compressed?", read_pairs, write(content))


def test_bad_gzip(write):
    refused("named .gz but not readable as gzip", read_pairs, write("a\tx\n", "f.gz"))
    whole = gzip.compress(os.urandom(9000).hex().encode())
    refused("damaged or cut short", read_lines, write(whole[: len(whole) // 2], "f.gz"))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    with pytest.raises(DataError):
        read_lines(write(bytes(damaged), "f.gz"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"ab\xff\tx", "f.tsv:2:3: byte 0xff is not valid UTF-8"),
        (b"a\tx\xe0\xa4", "f.tsv:2:4: byte 0xe0 is not valid UTF-8"),
        (b"\xed\xa0\x80\tx", "f.tsv:2:1: byte 0xed is not valid UTF-8"),  # a lone surrogate
        (b"\xc0\xafa\tx", "f.tsv:2:1: byte 0xc0 is not valid UTF-8"),  # an overlong slash
        (b"a\t\0x", "f.tsv:2:3: NUL inside the line"),
        (b"a\tx\rb\ty", "f.tsv:2:4: a carriage return inside the line"),
        (b"a", "f.tsv:2: the line has 1 columns separated by TAB, expected at least 2"),
        (b"", "f.tsv:2: the line is empty"),
        (b"  ", "f.tsv:2: the line is empty"),
        (b"\tx", "f.tsv:2: the source side (column 1) is empty"),
        (b"a\t \xe3\x80\x80", "f.tsv:2: the target side (column 2) is empty"),
    ],
)
def test_bad_line_is_named_or_skipped_and_counted(write, line, message):
    path = write(b"one\tuno\n" + line + b"\nthree\ttres\n")
    refused(message, read_pairs, path)
    skipped = []
    assert read_pairs(path, bad_lines="skip", skipped=skipped) == [Pair("one", "uno"), Pair("three", "tres")]
    assert len(skipped) == 1 and message in skipped[0]


def test_nothing_left_after_skipping(write):
    refused("no usable pair (2 bad lines skipped)", read_pairs, write("a\nb\n"), bad_lines="skip")
    refused("no usable line (1 bad lines skipped)", read_lines, write(b"\xff\n"), bad_lines="skip")


def test_a_bad_line_of_one_file_takes_its_partner_along(write):
    source, target = write(b"a\n\xff\nc\nd\n", "s"), write(b"x\ny\n\nw\n", "t")
    refused("s:2:1: byte 0xff", read_pairs, source, target)
    skipped = []
    assert read_pairs(source, target, bad_lines="skip", skipped=skipped) == [Pair("a", "x"), Pair("d", "w")]
    assert len(skipped) == 2 and "s:2:1:" in skipped[0] and "t:3: the line is empty" in skipped[1]


WORDS = ["one", "a longer line here", "two words", "the longest line of them all by far", "x y", "and another one"]


@pytest.mark.parametrize("removed", range(12))
def test_unequal_counts_point_to_the_missing_line(write, removed):
    lines = WORDS * 2
    source = write("".join(line + "\n" for line in lines), "s")
    target = write("".join(line.upper() + "\n" for i, line in enumerate(lines) if i != removed), "t")
    with pytest.raises(DataError) as caught:
        read_pairs(source, target, bad_lines="skip")
    message = str(caught.value)
    assert "s has 12 lines and " in message and "t has 11, expected the same number" in message
    assert f"first suspicious line: {removed + 1} (" in message and "1 source lines left out" in message


def test_unequal_counts_point_to_a_line_empty_on_one_side(write):
    refused("s has 3 lines and", read_pairs, write("a\nb\nc\n", "s"), write("a\n\nb\nc\n", "t"))
    refused(
        "first suspicious line: 2 (target: the line is", read_pairs, write("a\nb\nc\n", "s"), write("a\n\nb\nc\n", "t")
    )


def test_limit_of_a_line_is_exact(write, monkeypatch):
    monkeypatch.setattr(data, "MAX_LINE_BYTES", 10)
    for end in (b"\n", b"\r\n", b""):
        assert read_lines(write(b"0123456789" + end)) == ["0123456789"]
        for length in (11, 12, 13, 24, 25, 100):
            skipped = []
            path = write(b"x\n" + b"0" * length + (end or b"\n") + b"y" + end)
            refused("f.tsv:2: the line is longer than the limit of 10 bytes", read_lines, path)
            assert read_lines(path, bad_lines="skip", skipped=skipped) == ["x", "y"]
            assert len(skipped) == 1


def test_line_of_a_gibibyte_is_refused_in_flat_memory(tmp_path):
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.write(b"a\tb\n" + b"x" * 4096)
        file.truncate(1 << 30)  # sparse: nothing is written
    tracemalloc.start()
    try:
        refused("f:2: the line is longer than the limit of 1048576 bytes", read_lines, path)
        refused("f:2: the line is longer than the limit of 1048576 bytes", read_pairs, path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_stream_is_read_line_by_line():
    class Slow(io.BytesIO):
        reads = 0

        def readline(self, size=-1):
            self.reads += 1
            return super().readline(size)

    stream = Slow(b"a\nb\nc\n")
    lines = scan_stream(stream, "<stdin>")
    assert next(lines).text == "a" and stream.reads == 1


def test_blank_lines_stay_in_read_lines(write):
    assert read_lines(write("a\n\nb \n")) == ["a", "", "b "]


@given(content=st.binary(max_size=60))
def test_any_bytes_give_lines_or_one_line_of_error(content):
    try:
        lines = list(scan_stream(io.BytesIO(content), "f"))
    except DataError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(lines) == len(content.removesuffix(b"\n").split(b"\n"))


@given(texts=st.lists(st.text(st.characters(exclude_characters="\n\r\0", codec="utf-8")), min_size=1))
def test_any_text_is_read_back(texts):
    content = "".join(text + "\n" for text in texts).encode()
    if content.startswith((b"\xef\xbb\xbf", b"PK\x03\x04", b"BZh91AY&SY")):
        return
    assert [line.text for line in scan_stream(io.BytesIO(content), "f")] == texts


# Links


def test_links_of_a_third_column(write):
    path = write("a b\tx y\t0-0 1?1\nc\tz\t0-0\nd\tw\t\ne\tv\n")
    assert [pair.links for pair in read_pairs(path)] == [((0, 0, True), (1, 1, False)), ((0, 0, True),), (), None]


@pytest.mark.parametrize("third", ["3", "pos=V", "0-0 x", "0-0,1-1", "0--0", "-1-0", "CC-BY 0-0", "0.0-1", "٠-٠"])
def test_a_third_column_with_any_other_item_is_no_links(write, third):
    assert [pair.links for pair in read_pairs(write(f"a\tx\t0-0\nb\ty\t{third}\n"))] == [None, None]


def test_an_empty_third_column_is_no_links(write):
    assert [pair.links for pair in read_pairs(write("a\tx\t\nb\ty\t\n"))] == [None, None]


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("2-0", "f.tsv:2: a link names source token 2, but the source has 2 tokens"),
        ("0?1", "f.tsv:2: a link names target token 1, but the target has 1 tokens"),
        ("9" * 5000 + "-0", "a link names source token 1000000000"),
    ],
)
def test_links_outside_the_sentence(write, link, message):
    path = write(f"a\tx\t0-0\na b\tx\t0-0 {link}\n")
    refused(message, read_pairs, path)
    skipped = []
    assert len(read_pairs(path, bad_lines="skip", skipped=skipped)) == 1
    assert len(skipped) == 1


def test_links_count_tokens_of_the_level(write):
    path = write("abc\tx y\t2-1\n")
    refused("source has 1 tokens", read_pairs, path)
    assert read_pairs(path, levels=("char", "word"))[0].links == ((2, 1, True),)
    with pytest.raises(ValueError, match="level is 'letter'"):
        read_pairs(path, levels=("letter", "word"))


def test_swapped_columns_swap_links(write):
    assert read_pairs(write("a\tx y\t0-1\n"), columns="2:1") == [Pair("x y", "a", ((1, 0, True),))]


def test_pairs_know_their_line(write):
    path = write("a\tx\n\nb\ty\n")
    pairs = read_pairs(path, bad_lines="skip")
    assert [pair.line for pair in pairs] == [1, 3] and pairs[1] == Pair("b", "y") and "line" not in repr(pairs[1])
    assert [pair.line for pair in read_pairs(write("a\tx\t0-0\nb\ty\t\n"))] == [1, 2]


def test_links_that_are_needed(write):
    pairs = read_pairs(write("a\tx\t0-0\nb\ty\n"))
    check_links(pairs, "f.tsv", "somebody reads them", every=False)
    with pytest.raises(DataError, match=r"^f.tsv:2: no gold links, expected .*third column; somebody reads them$"):
        check_links(pairs, "f.tsv", "somebody reads them")
    for every, message in (
        (True, "^f.tsv:2: no gold"),
        (False, "^f.tsv: no pair has gold links, expected .* column; why"),
    ):
        with pytest.raises(DataError, match=message):
            check_links(pairs[1:], "f.tsv", "why", every=every)
    check_links([Pair("a", "x", ())], "f.tsv", "why")  # nothing is linked, and that is known
    with pytest.raises(DataError, match=r"^f.tsv: pair 0: no gold links"):
        check_links([Pair("a", "x")], "f.tsv", "why")
    for link, message in (((1, 0, True), "source token 1, but the source has 1"), ((0, -1, True), "target token -1")):
        with pytest.raises(DataError, match=f"^f.tsv: pair 1: a link names {message}"):
            check_links([Pair("a", "x", ()), Pair("a", "x", (link,))], "f.tsv", "why", every=False)
    check_links([Pair("ab", "x", ((1, 0, True),))], "f.tsv", "why", levels=("char", "word"))
    check_links([Pair("a b", "x", ((1, 0, True),))], "f.tsv", "why", levels=("subword", "word"))  # they count words
    pair = Pair("e\u0301", "x", ((1, 0, True),))
    check_links([pair], "f.tsv", "why", levels=("char", "word"), normalization="none")
    with pytest.raises(DataError, match="names source token 1, but the source has 1 tokens"):
        check_links([pair], "f.tsv", "why", levels=("char", "word"))
    with pytest.raises(ValueError, match="normalization is 'nfd'"):
        check_links([pair], "f.tsv", "why", normalization="nfd")
    check_links([Pair("a\tb,c", "x", ((2, 0, True),), ("a", "b", "c"))], "f.tsv", "why")


def test_parse_links():
    assert parse_links(" 0-0  12?3 ") == ((0, 0, True), (12, 3, False))
    assert parse_links("") == ()
    assert parse_links("0-0 0:1") is None
    assert parse_links("007-0") == ((7, 0, True),)


# Columns


def test_two_source_columns_become_characters_and_tags(write):
    (pair,) = read_pairs(write("fijar\tpos=V,per=1, num=PL\tfijaríamos\n"), columns="1,2:3")
    assert pair.source == "fijar\tpos=V,per=1, num=PL" and pair.target == "fijaríamos" and pair.links is None
    assert pair.source_tokens == ("f", "i", "j", "a", "r", "[pos=V]", "[per=1]", "[num=PL]")
    assert pair.source_input == pair.source_tokens == two_column_tokens(pair.source)
    assert Pair("a", "b").source_input == "a"


def test_two_column_tokens():
    assert two_column_tokens("e\u0301\tA,,B,") == ("é", "[A]", "[B]")
    assert two_column_tokens("ﬁ\tＡ", "nfkc") == ("f", "i", "[A]")
    assert two_column_tokens("e\u0301\tA", "none") == ("e", "\u0301", "[A]")
    for text in ("fijar", "fijar\t", "\tV", "a\tb\tc"):
        refused("expected two filled ones", two_column_tokens, text)


@pytest.mark.parametrize(
    ("bundle", "tags"),
    [
        ("N;GEN;SG", ["N", "GEN", "SG"]),
        ("V;COND;NOM(2,PL)", ["V", "COND", "NOM", "2", "PL"]),
        ("V;ARGNO(1;SG);;", ["V", "ARGNO", "1", "SG"]),
        ("pos=N,case=ON+ABL", ["pos=N", "case=ON+ABL"]),
    ],
)
def test_bundles_of_unimorph_are_split_into_features(bundle, tags):
    assert two_column_tokens(f"ev\t{bundle}") == ("e", "v", *(f"[{tag}]" for tag in tags))


def test_a_tag_is_never_a_letter_unless_an_old_model_reads_it():
    assert two_column_tokens("Na\tN,3") == ("N", "a", "[N]", "[3]")
    assert two_column_tokens("Na\tN,3;PL", tags="commas") == ("N", "a", "N", "3;PL")
    with pytest.raises(ValueError, match=r"tags is 'comas', expected one of: commas, features"):
        two_column_tokens("a\tb", tags="comas")


def test_one_malformed_row_among_links_is_a_bad_line(write):
    """A typo must not drop the links of the whole file without a word."""
    rows = ["a b\tx y\t0-0 1-1"] * 6
    path = write("\n".join([*rows[:3], "a b\tx y\t0-0 1_1", *rows[3:]]) + "\n")
    message = r":4: '1_1' in the third column is no gold link i-j or i\?j, as most of the other lines hold there$"
    with pytest.raises(DataError, match=message):
        read_pairs(path)
    skipped: list[str] = []
    pairs = read_pairs(path, bad_lines="skip", skipped=skipped)
    assert len(pairs) == 6 and all(pair.links == ((0, 0, True), (1, 1, True)) for pair in pairs) and len(skipped) == 1


def test_a_third_column_that_holds_no_links_is_said_to_be_left_aside(write):
    notes: list[str] = []
    path = write("a\tx\t0-0\nb\ty\tcited 2021\nc\tz\t0.7\n")
    assert [pair.links for pair in read_pairs(path, notes=notes)] == [None] * 3
    assert notes == [f"{path}: the third column is left aside: line 2 holds 'cited 2021', which is no gold link i-j"]


def test_dates_in_the_third_column_say_how_to_leave_it_out(write):
    with pytest.raises(DataError, match=r"source token 2021, .* holds something else, leave it out \(cut -f1,2\)"):
        read_pairs(write("a b c\td e\t2021-05\n"))


def test_other_columns(write):
    path = write("0\tb\tc\td\n")
    assert read_pairs(path, columns="4:2") == [Pair("d", "b")]
    refused("has 4 columns separated by TAB, expected at least 5", read_pairs, path, columns="1:5")
    refused("the source side (column 2) is empty", read_pairs, write("a\t\tc\n"), columns="1,2:3")


@pytest.mark.parametrize("columns", ["", "1", "0:1", "1:0", "1:2:3", "1,2,3:4", "a:b", "1-2", "1:2 ", "99999:1"])
def test_malformed_columns(write, columns):
    with pytest.raises(ValueError, match=r"columns is .*expected SOURCE:TARGET"):
        read_pairs(write("a\tb\n"), columns=columns)


def test_malformed_policy(write):
    with pytest.raises(ValueError, match="bad_lines is 'warn', expected error or skip"):
        read_pairs(write("a\tb\n"), bad_lines="warn")


DATA = os.environ.get("DHYAN_DATA")


@pytest.mark.skipif(not DATA, reason="DHYAN_DATA is not set")
def test_real_files():
    root = Path(DATA)
    counts = {
        "g2p_sigmorphon2020/hin_train.tsv": 3600,
        "dakshina_hi/dev.tsv": 4358,
        "names_hi_en/dev.tsv": 800,
        "tatoeba_hi_en/dev.tsv": 250,
    }
    for name, count in counts.items():
        pairs = read_pairs(root / name)
        assert len(pairs) == count and all(pair.links is None for pair in pairs)
    assert len(read_pairs(root / "inflection_sigmorphon2016/spanish_dev.tsv", columns="1,2:3")) == 1596
    assert len(read_pairs(root / "eutrans_es_en/dev.es", root / "eutrans_es_en/dev.en")) == 100
    assert len(read_pairs(root / "cmudict/dev.tsv.gz")) > 100
