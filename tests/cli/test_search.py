"""Decoding by the command line: every option reaches the search, ensembles, averaging, prefixes and phrases."""

import contextlib
import dataclasses
import io
import json

import pytest
from dhyan import SearchOptions, corpus, load
from dhyan.cli import main
from dhyan.cli.parser import parse, search_options

TEXT = "मैं खाना खा रहा हूँ\nमैं सेब खा रहा हूँ\n\nलड़की सो रही है\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """one, two: models of one data set and different shapes; again: of one's shape; other: of another vocabulary."""
    path = tmp_path_factory.mktemp("search")
    pairs = corpus.generate(120)
    (path / "train.tsv").write_text(corpus.to_tsv(pairs[20:]), encoding="utf-8")
    (path / "few.tsv").write_text(corpus.to_tsv(pairs[20:50]), encoding="utf-8")
    (path / "valid.tsv").write_text(corpus.to_tsv(pairs[:20]), encoding="utf-8")
    (path / "in.txt").write_text(TEXT, encoding="utf-8")
    shapes = {
        "one": ["--seed", "1"], "two": ["--seed", "2", "--cell", "gru"], "again": ["--seed", "3"],
        "other": ["--seed", "1"],
    }  # fmt: skip
    for name, options in shapes.items():
        files = [str(path / ("few.tsv" if name == "other" else "train.tsv")), str(path / "valid.tsv")]
        small = ["--hidden", "16", "--embedding", "16", "--batch", "16", "--epochs", "2", "--out", str(path / name)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(["train", *files, *small, *options]) == 0
    return path


def translate(folder, capsys, *options, model="one"):
    assert main(["translate", str(folder / model), str(folder / "in.txt"), *map(str, options)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def fails(capsys, code, message, *arguments):
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert err.startswith("dhyan: ") and err.count("\n") == 1 and message in err
    return out


def test_every_field_has_an_option(capsys):
    fields = {field.name for field in dataclasses.fields(SearchOptions)}
    assert set(SearchOptions.flags().values()) == fields
    for command in ("translate", "evaluate", "report"):
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert all(option in out for option in SearchOptions.flags() if option != "--nbest" or command == "translate")
    for option, field in SearchOptions.flags().items():
        kind = SearchOptions.options()[field].kind
        value = {"length_form": "gnmt", "top_p": "0.5", "beam": "1"}.get(field, "3")
        needs = ["--sample"] if field in ("temperature", "top_k", "top_p", "seed") else []
        arguments = parse(["translate", "x", *needs, option, *([] if kind is bool else [value])])
        expected = True if kind is bool else kind(value)
        assert getattr(search_options(arguments), field) == expected != getattr(SearchOptions, field)


def test_without_options_the_defaults_hold():
    for command in ("translate", "evaluate"):
        assert search_options(parse([command, "x"])) == SearchOptions()
    assert search_options(parse(["translate", "x", "--nbest", "9"])) == SearchOptions(beam=9, nbest=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length-form", "gnm"], "length_form is 'gnm', expected one of: gnmt, power"),
        (["--length-penalty", "-1"], "length_penalty is -1.0"),
        (["--min-length", "5", "--max-length", "5"], "min_length is 5, expected less than max_length = 5"),
        (["--max-length", "0"], "argument --max-length: got 0, expected at least 1"),
        (["--temperature", "0.5"], "temperature is 0.5, which only sampling reads"),
        (["--no-repeat-ngrams", "2"], "unknown option '--no-repeat-ngrams', did you mean: --no-repeat-ngram"),
        (["--prefix", "a", "--prefix-file", "b"], "argument --prefix-file: not allowed with argument --prefix"),
    ],
)
def test_usage_errors(capsys, options, message):
    assert fails(capsys, 2, message, "translate", "x", *options) == ""
    if "prefix" not in options[0]:
        assert fails(capsys, 2, message, "evaluate", "x", "y", *options) == ""


def test_options_reach_the_search(folder, capsys):
    translator, lines = load(folder / "one"), TEXT.splitlines()
    for given, options in (
        (["--min-length", "9"], dict(min_length=9)),
        (["--no-repeat-ngram", "1", "--no-unknown", "--beam", "3"], dict(no_repeat_ngram=1, no_unknown=True, beam=3)),
        (["--length-form", "gnmt", "--coverage-penalty", "3"], dict(length_form="gnmt", coverage_penalty=3.0)),
        (["--max-length", "3"], dict(max_length=3)),
    ):
        expected = [result.text for result in translator.translate(lines, **options)]
        assert translate(folder, capsys, *given).splitlines() == expected
    words = [line.split() for line in translate(folder, capsys, "--min-length", "9").splitlines()]
    assert [len(line) >= 9 for line in words] == [True, True, False, True]


def test_sampling(folder, capsys):
    given = ["--sample", "--nbest", "3", "--temperature", "1.5", "--seed", "4"]
    first = translate(folder, capsys, *given)
    assert translate(folder, capsys, *given) == first != translate(folder, capsys, *given[:-1], "5")
    rows = [row.split(" ||| ") for row in first.splitlines()]
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] * 3 + ["2"] + ["3"] * 3
    records = [json.loads(line) for line in translate(folder, capsys, *given, "--jsonl").splitlines()]
    assert [other["text"] for other in records[0]["nbest"]] == [row[1] for row in rows[:3]]
    small = ["--sample", "--top-k", "1"]
    assert translate(folder, capsys, *small) == translate(folder, capsys, "--beam", "1")


def test_prefixes_and_phrases(folder, tmp_path, capsys):
    out = translate(folder, capsys, "--prefix", "the", "--include", "is", "--include", "an apple").splitlines()
    assert out[2] == ""
    for line in (out[0], out[1], out[3]):
        assert line.split()[0] == "the" and "is" in line.split() and " an apple" in line
    (tmp_path / "prefixes").write_text("the girl\n\nI\nI am\n", encoding="utf-8")
    (tmp_path / "phrases").write_text("apple\tthe boy\n\n\nwill\n", encoding="utf-8")
    files = ["--prefix-file", tmp_path / "prefixes", "--include-file", tmp_path / "phrases"]
    out = translate(folder, capsys, *files, "--beam", 2).splitlines()
    plain = translate(folder, capsys, "--beam", 2).splitlines()
    assert out[0].startswith("the girl") and "the boy" in out[0] and "apple" in out[0].split()
    assert out[1] == plain[1] and out[2] == "" and out[3].startswith("I am") and "will" in out[3].split()
    records = translate(folder, capsys, *files, "--beam", 2, "--jsonl").splitlines()
    assert [json.loads(record)["text"] for record in records] == out


def test_texts_that_cannot_be_written(folder, tmp_path, capsys):
    given = ["translate", folder / "one", folder / "in.txt"]
    fails(capsys, 1, "translate: --prefix: got 'zebras', expected tokens of", *given, "--prefix", "the zebras")
    fails(capsys, 1, "translate: --include: got 'zebras'", *given, "--include", "zebras")
    (tmp_path / "short").write_text("the\nthe\n", encoding="utf-8")
    fails(capsys, 1, "short: holds 2 lines, expected one for every line", *given, "--prefix-file", tmp_path / "short")
    (tmp_path / "bad").write_text("the\nan apple\tzebras\n\n\n", encoding="utf-8")
    fails(capsys, 1, "bad:2: got 'zebras', expected", *given, "--include-file", tmp_path / "bad")
    (tmp_path / "broken").write_bytes(b"the\n\xff\n\n\n")
    fails(capsys, 1, "broken:2:1: byte 0xff", *given, "--prefix-file", tmp_path / "broken")
    fails(capsys, 1, "absent", *given, "--prefix-file", tmp_path / "absent")
    fails(capsys, 1, "need a beam, got sample", *given, "--include", "the", "--sample")


def test_an_ensemble(folder, capsys):
    both = load([folder / "one", folder / "two"])
    expected = [result.text for result in both.translate(TEXT.splitlines())]
    assert translate(folder, capsys, "--ensemble", folder / "two").splitlines() == expected
    three = ["--ensemble", folder / "two", folder / "again"]
    assert translate(folder, capsys, *three) != ""
    results = []
    for more in ([], three):
        assert main(["evaluate", str(folder / "one"), str(folder / "valid.tsv"), "--json", *map(str, more)]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["pairs"] == results[1]["pairs"] == 20 and results[0] != results[1]
    given = ["translate", folder / "one", folder / "in.txt", "--ensemble", folder / "other"]
    assert "other" in fails(capsys, 1, "load: the source vocabulary of ", *given) + str(given[-1])


def test_a_file_behind_the_folders_of_an_ensemble(folder, tmp_path, capsys):
    expected = translate(folder, capsys, "--ensemble", folder / "two")
    assert main(["translate", str(folder / "one"), "--ensemble", str(folder / "two"), str(folder / "in.txt")]) == 0
    assert capsys.readouterr().out == expected
    given = [str(folder / "one"), "--ensemble", str(folder / "two"), str(folder / "valid.tsv")]
    assert main(["evaluate", *given]) == 0
    assert main(["report", *given, "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    given = ["evaluate", folder / "one", "--ensemble", folder / "two", "--source", folder / "in.txt"]
    fails(capsys, 2, "evaluate: expected one TSV file, or --source FILE and --target FILE", *given)
    fails(capsys, 1, "in.txt", "evaluate", folder / "one", folder / "valid.tsv", "--ensemble", folder / "in.txt")


def test_average(folder, tmp_path, capsys):
    out = tmp_path / "mean"
    assert main(["average", str(folder / "one"), str(folder / "again"), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}: the mean of 2 models\n" and captured.err == ""
    assert main(["translate", str(out), str(folder / "in.txt")]) == 0
    assert capsys.readouterr().out.count("\n") == 4
    given = [folder / "one", folder / "two", "--out", tmp_path / "no"]
    fails(capsys, 1, "average: cell of ", "average", *given)
    fails(capsys, 1, "holds a model already", "average", folder / "one", folder / "again", "--out", out)
    fails(capsys, 2, "average: the following arguments are required: --out", "average", folder / "one")


def test_links_are_not_written_over_what_is_read(folder, tmp_path, capsys):
    for name in ("text", "prefixes", "dictionary"):
        (tmp_path / name).write_text("मैं\tI\n" if name == "dictionary" else "मैं\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = [str(tmp_path / "text"), "--prefix-file", tmp_path / "prefixes", "--dictionary", tmp_path / "dictionary"]
    for path in before:
        message = f"translate: --align: {path} is read, expected another file to write"
        fails(capsys, 1, message, "translate", folder / "one", *given, "--align", path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_too_long_has_its_file_and_line(folder, tmp_path, capsys):
    path, short = tmp_path / "pairs.tsv", "मैं\tI\n" * 600
    for long, message in (("मैं " * 501 + "\tI\n", "source has 501"), ("मैं\t" + "I " * 1011 + "\n", "target has 1011")):
        path.write_text(short + long, encoding="utf-8")
        fails(capsys, 1, f"{path}:601: the {message} tokens", "align", folder / "one", path)
        fails(capsys, 1, f"{path}:601: the {message} tokens", "evaluate", folder / "one", path, "--beam", "1")


def test_the_smallest_temperature(folder, capsys):
    out = translate(folder, capsys, "--sample", "--temperature", "1e-320")
    assert out == translate(folder, capsys, "--sample", "--top-k", "1")


def test_a_model_that_copies_is_asked_for_words_of_its_line(folder, tmp_path, capsys):
    copying = tmp_path / "copying"
    files = [str(folder / "train.tsv"), str(folder / "valid.tsv"), "--out", str(copying)]
    small = ["--hidden", "16", "--embedding", "16", "--batch", "16", "--epochs", "1", "--copy"]
    assert main(["train", *files, *small]) == 0
    capsys.readouterr()
    text, asked = tmp_path / "in.txt", tmp_path / "asked.txt"
    text.write_text("zorro खाना\n\nमैं zorro\n", encoding="utf-8")
    asked.write_text("zorro\n\n\n", encoding="utf-8")
    given = ["translate", str(copying), str(text), "--beam", "2"]
    assert main([*given, "--prefix", "zorro"]) == 0
    first, blank, third = capsys.readouterr().out.split("\n")[:3]
    assert first.startswith("zorro") and blank == "" and third.startswith("zorro")
    assert main([*given, "--include-file", str(asked)]) == 0
    assert "zorro" in capsys.readouterr().out.split("\n")[0].split()
    assert main([*given, "--include", "zorro"]) == 0
    assert [line.count("zorro") > 0 for line in capsys.readouterr().out.split("\n")[:3]] == [True, False, True]
    fails(capsys, 1, "--include: line 1: got 'nobody'", *given, "--include", "nobody")
    asked.write_text("zorro\n\nnobody\n", encoding="utf-8")
    fails(capsys, 1, f"{asked}:3: got 'nobody'", *given, "--prefix-file", str(asked))
