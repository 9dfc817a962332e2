"""The command line: results on stdout, one line about each problem on stderr, the right exit code."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from dhyan import corpus
from dhyan.attention.scorings import scorings
from dhyan.cli import main
from dhyan.cli.parser import COMMANDS, UsageError, parse
from dhyan.cli.progress import Progress
from dhyan.text.pairs import parse_links
from dhyan.training.config import TABLES, read_toml
from dhyan.translate.translation import SOURCE_END
from dhyan.translate.translator import load
from helpers.training import digests
from rich.console import Console

SMALL = ["--hidden", "16", "--embedding", "16", "--batch", "16", "--seed", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.tsv, valid.tsv with links, and `model`, briefly trained on them."""
    path = tmp_path_factory.mktemp("cli")
    pairs = corpus.generate(120)
    (path / "train.tsv").write_text(corpus.to_tsv(pairs[20:]), encoding="utf-8")
    (path / "valid.tsv").write_text(corpus.to_tsv(pairs[:20]), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", *files(path), "--out", str(path / "model"), "--epochs", "2", *SMALL]) == 0
    return path


def files(path):
    return [str(path / "train.tsv"), str(path / "valid.tsv")]


def command(*arguments, **options):
    return [sys.executable, "-W", "error", "-m", "dhyan", *map(str, arguments)]


def start(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, timeout=60, **options)


def fails(capsys, code, message, *arguments):
    """The command ends with this code, nothing on stdout and one line on stderr that holds the message."""
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dhyan: ") and err.count("\n") == 1 and err.endswith("\n")
    assert message in err
    return err


# ---------------------------------------------------------------- usage


def test_version_is_fast_and_imports_nothing_heavy():
    done = start("--version")
    assert done.returncode == 0 and done.stdout.startswith(b"dhyan ") and done.stderr == b""
    code = (
        "import sys; from dhyan.cli import main; main(['--version'])\n"
        "print([m for m in ('numpy', 'rich', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    # Without an installed package the version comes from the compiled core, which needs numpy.
    assert done.stdout.endswith("[]\n") or "numpy" in done.stdout
    assert "rich" not in done.stdout and "matplotlib" not in done.stdout


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "usage: dhyan" in captured.err
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert f"usage: dhyan {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "command is 'trian', expected one of: train, "),
        (["--verison"], "unknown option '--verison', did you mean: --version"),
        (["train", "a", "b", "--hiden", "3"], "train: unknown option '--hiden', did you mean: --hidden,"),
        (["train", "a", "b", "--hid", "3"], "unknown option '--hid'"),  # no abbreviations
        (["train", "a", "b", "--out", "x", "--hidden", "0"], "hidden is 0, expected at least 1"),
        (["train", "a", "b", "--out", "x", "--hidden", "many"], "argument --hidden: invalid int value: 'many'"),
        (["train", "a", "b", "--out", "x", "--dropout", "1"], "dropout is 1.0, expected 0 <= dropout < 1"),
        (["train", "a", "b", "--out", "x", "--lr", "nan"], "lr is nan"),
        (["train", "a", "b", "--out", "x", "--optimizer", "sdg"], "optimizer is 'sdg', expected one of: sgd, "),
        (["train", "a", "b", "--out", "x", "--schedule", "inverse"], "'inverse', expected one of: inverse_sqrt, "),
        (["train", "a", "b", "--out", "x", "--momentum", "1"], "momentum is 1.0, expected 0 <= momentum < 1"),
        (["train", "a", "b", "--out", "x", "--residual"], "residual is true with layers = 1, expected at least 2"),
        (["train", "a", "b", "--out", "x", "--tie", "outptu"], "tie is 'outptu', expected one of: output, "),
        (["train", "a", "b", "--out", "x", "--cell", "lstn"], "cell is 'lstn', expected one of: lstm, "),
        (["train", "a", "b", "--out", "x", "--attention", "bahdanu"], "'bahdanu', expected one of: "),
        (["train", "a", "b", "--out", "x", "--attention", "aditive"], "'aditive', expected one of: additive, "),
        (["train", "a", "b", "--out", "x", "--normalize", "sparsmax"], "normalize is 'sparsmax', expected one of: "),
        (["train", "a", "b", "--out", "x", "--heads", "3"], "heads is 3, expected a divisor of 256"),
        (["train", "a", "b", "--out", "x", "--heads", "2", "--attention", "none"], "heads is 2, expected 1"),
        (["train", "a", "b", "--out", "x", "--heads", "0"], "heads is 0, expected at least 1"),
        (["train", "a", "b", "--out", "x", "--window", "-1"], "radius is -1"),
        (["train", "a", "b", "--out", "x", "--window", "predictive:0"], "radius is 0, expected at least 1"),
        (["train", "a", "b", "--out", "x", "--window", "predictive"], "window is 'predictive', expected a radius or"),
        (["train", "a", "b", "--out", "x", "--window", "nan"], "window is 'nan', expected a radius or predictive:RADI"),
        (["train", "a", "b", "--out", "x", "--window", "2", "--normalize", "monotonic"], "a window with normalize"),
        (["train", "a", "b", "--out", "x", "--normalize", "softmx"], "'softmx', expected one of: softmax, sparsemax"),
        (["train", "a", "b", "--out", "x", "--attention", "oracel"], "'oracel', expected one of: oracle, "),
        (["train", "a", "b", "--out", "x", "--guided", "-0.5"], "guided is -0.5, expected 0 <= guided"),
        (["train", "a", "b", "--out", "x", "--guided", "nan"], "guided is nan"),
        (["train", "a", "b", "--out", "x", "--guided", "lots"], "argument --guided: invalid float value: 'lots'"),
        (["train", "a", "b", "--out", "x", "--coverage", "inf"], "coverage is inf"),
        (["train", "a", "b", "--out", "x", "--temperature", "0"], "temperature is 0.0, expected 0 < temperature"),
        (["train", "a", "b", "--out", "x", "--normalized", "--attention", "dot"], "normalized is true, expected false"),
        (["train", "a", "b", "--out", "x", "--max-source", "-1"], "max_source is -1, expected at least 0"),
        (["train", "a", "b", "--out", "x", "--precision", "float16"], "precision is 'float16', expected one of: float"),
        (
            ["train", "a", "b", "--out", "x", "--source-level", "chars"],
            "source_level is 'chars', expected one of: char",
        ),
        (["train", "a", "b", "--out", "x", "--bad-lines", "drop"], "bad_lines is 'drop', expected one of: "),
        (["train", "a", "b"], "train: --out DIR is missing"),
        (["train", "a", "--out", "x"], "expected the two TSV files TRAIN and VALID"),
        (["train", "a", "b", "c", "--out", "x"], "train: got the further argument 'c'"),
        (["train", "--source", "a", "b", "--out", "x"], "--source and --target go together"),
        (["train", "a", "b", "--source", "a", "b", "--target", "a", "b"], "--source and --target"),
        (["translate"], "translate: the following arguments are required: DIR"),
        (["translate", "x", "--beam", "0"], "argument --beam: got 0, expected at least 1"),
        (["translate", "x", "--beam", "two"], "argument --beam: got 'two', expected an integer"),
        (["translate", "x", "--beam", "2", "--nbest", "3"], "--nbest is 3, expected at most --beam 2"),
        (["evaluate", "x"], "evaluate: expected one TSV file, or --source FILE and --target FILE"),
        (["evaluate", "x", "y", "--source", "z"], "evaluate: expected one TSV file"),
        (["evaluate", "x", "y", "--tokenize", "13b"], "--tokenize is '13b', expected one of: 13a"),
        (["report", "x", "y"], "report: the following arguments are required: --out"),
        (["report", "x", "--out", "p.html"], "report: expected one TSV file, or --source FILE and --target FILE"),
        (["report", "x", "y", "--out", "p.html", "--choose", "bets"], "--choose is 'bets', expected one of: best, "),
        (["report", "x", "y", "--out", "p.html", "--sentences", "0"], "argument --sentences: got 0, expected at least"),
        (["align", "x", "y", "--bad-lines", "no"], "--bad-lines is 'no', expected one of: error, skip"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    fails(capsys, 2, message, *arguments)


def test_files_may_stand_after_options():
    """argparse alone takes optional positionals only up to the first option."""
    for given in (["translate", "m", "--beam", "2", "in"], ["translate", "--beam", "2", "m", "in"]):
        options = parse(given)
        assert (options.model, options.input, options.beam) == ("m", "in", 2)
    options = parse(["train", "--hidden", "3", "a", "--out", "x", "b"])
    assert (options.train, options.valid, options.hidden, options.out) == ("a", "b", 3, "x")
    assert parse(["evaluate", "m", "--json", "test"]).test == "test"
    assert parse(["translate", "m", "--jsonl", "-"]).input == "-"
    for given in (["translate", "m", "--beam", "2", "in", "more"], ["train", "a", "--lr", "1", "b", "c"]):
        with pytest.raises(UsageError, match="got the further argument"):
            parse(given)
    with pytest.raises(UsageError, match="unknown option '--hiden'"):
        parse(["train", "a", "--lr", "1", "b", "--hiden", "3"])


def test_the_help_of_train_lists_every_scoring(capsys):
    assert main(["train", "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(scorings()) <= set(words) and {"sparsemax", "monotonic", "--no-normalized"} <= set(words)


def test_a_process_exits_with_the_code():
    done = start("train", "a", "b", "--out", "x", "--cell", "lst")
    assert done.returncode == 2 and done.stdout == b"" and done.stderr.count(b"\n") == 1
    done = start("translate", "no-such-folder", input=b"x\n")
    assert done.returncode == 1 and done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert b"no-such-folder" in done.stderr


# ---------------------------------------------------------------- train


def test_every_field_of_the_tables_has_an_option():
    fields = {(table, field) for table, cls in TABLES.items() for field in cls.__dataclass_fields__}
    offered = {(table, key) for table, cls in TABLES.items() for key in cls.flags().values()}
    assert offered <= fields
    beyond = {"source_size", "target_size", "bidirectional", "input_feeding", "source"}
    assert {field for _, field in fields - offered} == beyond


def test_print_config_round_trip(tmp_path, capsys):
    assert (
        main(["train", "--print-config", "--hidden", "32", "--window", "2", "--lr", "0.01", "--columns", "1,2:3"]) == 0
    )
    first = capsys.readouterr().out
    (tmp_path / "c.toml").write_text(first, encoding="utf-8")
    tables = read_toml(tmp_path / "c.toml")
    assert tables["model"]["hidden"] == 32 and tables["model"]["window"] == 2 and tables["train"]["lr"] == 0.01
    assert tables["data"]["columns"] == "1,2:3" and "source_size" not in tables["model"]
    assert main(["train", "--print-config", "--config", str(tmp_path / "c.toml")]) == 0
    assert capsys.readouterr().out == first
    assert main(["train", "--print-config", "--config", str(tmp_path / "c.toml"), "--hidden", "64"]) == 0
    assert capsys.readouterr().out == first.replace("hidden = 32", "hidden = 64")


def test_the_options_of_attention_reach_the_configuration(tmp_path, capsys):
    given = [
        "--window",
        "predictive:3",
        "--heads",
        "4",
        "--temperature",
        "0.5",
        "--normalized",
        "--normalize",
        "sparsemax",
    ]
    assert main(["train", "--print-config", *given, "--guided", "0.3", "--coverage", "1", "--max-source", "9"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    tables = read_toml(tmp_path / "c.toml")
    expected = {"window": "predictive:3", "heads": 4, "temperature": 0.5, "normalized": True, "normalize": "sparsemax"}
    assert expected | {"max_source": 9} == {key: tables["model"][key] for key in (*expected, "max_source")}
    assert (tables["train"]["guided"], tables["train"]["coverage"]) == (0.3, 1.0)
    assert (
        main(["train", "--print-config", "--config", str(tmp_path / "c.toml"), "--no-normalized", "--window", "2"]) == 0
    )
    changed = text.replace('window = "predictive:3"', "window = 2").replace("normalized = true", "normalized = false")
    assert capsys.readouterr().out == changed


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[model]\nhidden = 0\n", "hidden is 0"),
        ("[model]\nwindow = 1.5\n", "radius is 1.5, expected an integer"),
        ("[model]\nheads = 5\n", "heads is 5, expected a divisor"),
        ("[model]\nhiden = 8\n", "unknown key 'hiden', did you mean: hidden"),
        ("[modle]\n", "unknown table [modle], expected one of: model"),
        ("hidden 3", "c.toml: "),
        ("[train]\nlr = 'fast'\n", "lr is 'fast', expected a number"),
    ],
)
def test_bad_configuration_file(tmp_path, capsys, toml, message):
    (tmp_path / "c.toml").write_text(toml, encoding="utf-8")
    fails(capsys, 1, message, "train", "--print-config", "--config", tmp_path / "c.toml")


def test_train_says_where_and_how_well(folder, tmp_path, capsys):
    out = tmp_path / "m"
    assert main(["train", *files(folder), "--out", str(out), "--epochs", "1", *SMALL]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out}: epoch 1, validation loss ") and captured.out.count("\n") == 1
    heading, row = captured.err.splitlines()
    assert heading.split()[:2] == ["epoch", "updates"] and row.split()[:2] == ["1", "7"]
    assert "\x1b" not in captured.err


def test_train_on_line_files_and_resume(folder, tmp_path, capsys):
    """Two runs of one epoch, the second resumed, end where one run of two epochs ends."""
    names = []
    for part in ("train", "valid"):
        rows = [row.split("\t") for row in (folder / f"{part}.tsv").read_text(encoding="utf-8").splitlines()]
        for side, column in (("hi", 0), ("en", 1)):
            path = tmp_path / f"{part}.{side}"
            path.write_text("".join(row[column] + "\n" for row in rows), encoding="utf-8")
            names.append(str(path))
    hindi, english = [names[0], names[2]], [names[1], names[3]]
    given = ["train", "--source", *hindi, "--target", *english, "--out", str(tmp_path / "m")]
    assert main([*given, "--epochs", "1", *SMALL]) == 0
    assert main([*given, "--epochs", "2", "--resume"]) == 0  # everything else comes from the folder
    assert digests(tmp_path / "m") == digests(folder / "model")
    capsys.readouterr()
    fails(capsys, 1, "hidden", *given, "--resume", "--hidden", "24")


def test_a_folder_that_holds_a_model_is_written_over_only_when_asked(folder, tmp_path, capsys):
    out = tmp_path / "m"
    given = ["train", *files(folder), "--out", str(out), "--epochs", "1", *SMALL]
    assert main(given) == 0
    before = digests(out)
    capsys.readouterr()
    fails(capsys, 1, "--resume goes on with it, --overwrite replaces it", *given)
    assert digests(out) == before
    assert main([*given, "--overwrite", "--lr", "0.5", "--select", "loss"]) == 0
    assert digests(out) != before
    assert capsys.readouterr().err.splitlines()[0].endswith("* best, kept (by loss)")


def test_a_resumed_run_shows_its_true_epoch():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = Progress("additive", "loss", done=4, epochs=60)
    progress._console = console
    with progress:
        progress.step(3, 7, 1.25)
        assert progress._live.tasks[0].description == "additive, epoch 5 of 60"


@pytest.mark.parametrize("content, words", [
    (b"#" * 70_000, "is larger than the limit of 65536 bytes"),
    (b"a." * 10_000 + b"b = 1", ":1: the line has 20005 characters, expected at most 16384"),
])  # fmt: skip
def test_a_configuration_of_endless_text(folder, tmp_path, capsys, content, words):
    path = tmp_path / "big.toml"
    path.write_bytes(content)
    fails(capsys, 1, words, "train", *files(folder), "--out", tmp_path / "m", "--config", path)


SECOND = """
import os, signal, sys
from dhyan import cli
from dhyan.cli import commands

def run(options):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        while True:
            pass
    finally:  # what is saved and cleaned up on the way out
        os.kill(os.getpid(), int(sys.argv[2]))
        print("cleaned up")

say = cli._say
def interrupted(message, code):
    os.kill(os.getpid(), int(sys.argv[2]))
    return say(message, code)

commands.run, cli._say = run, interrupted
sys.exit(cli.main(["info"]))
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_cuts_nothing_short(first, code, second):
    command = [sys.executable, "-c", SECOND, str(int(first)), str(int(second))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, "cleaned up\n")
    assert done.stderr == ("dhyan: interrupted\n" if first == signal.SIGINT else "dhyan: terminated\n")


def test_resume_of_nothing(folder, tmp_path, capsys):
    fails(capsys, 1, "nothing", "train", *files(folder), "--resume", "--out", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"a\tb\nc\n", ":2"),
        (b"a\tb\n\xff\tc\n", ":2:1"),
        (b"a\tb\n \tc\n", ":2"),
        ("a\tb\n".encode("utf-16"), "UTF-16"),
        (b"a\tb\nc\0\td\n", "NUL"),
    ],
)
def test_bad_training_file(folder, tmp_path, capsys, content, message):
    bad = tmp_path / "bad.tsv"
    if content is not None:
        bad.write_bytes(content)
    err = fails(capsys, 1, message, "train", bad, folder / "valid.tsv", "--out", tmp_path / "m")
    assert "bad.tsv" in err


def test_bad_lines_can_be_skipped(folder, tmp_path, capsys):
    bad = tmp_path / "bad.tsv"
    bad.write_bytes(b"no tab\n" + (folder / "train.tsv").read_bytes() + b"\xff\tx\n")
    given = ["train", str(bad), str(folder / "valid.tsv"), "--out", str(tmp_path / "m"), "--epochs", "1", *SMALL]
    assert main([*given, "--bad-lines", "skip"]) == 0
    assert f"{bad}: 2 bad lines skipped, the first: {bad}:1" in capsys.readouterr().err


def test_guided_training_and_its_links(folder, tmp_path, capsys):
    given = ["train", *files(folder), "--out", str(tmp_path / "m"), "--epochs", "1", *SMALL, "--guided", "0.5"]
    assert main(given) == 0
    capsys.readouterr()
    bare = tmp_path / "bare.tsv"
    rows = [row.split("\t") for row in (folder / "train.tsv").read_text(encoding="utf-8").splitlines()]
    bare.write_text("".join("\t".join(row[:2]) + "\n" for row in rows), encoding="utf-8")
    command = ["train", bare, folder / "valid.tsv", "--out", tmp_path / "n", *SMALL]
    fails(capsys, 1, f"{bare}: no pair has gold links", *command, "--guided", "0.5")
    fails(capsys, 1, f"{bare}:1: no gold links", *command, "--attention", "oracle")
    command = ["train", folder / "train.tsv", bare, "--out", tmp_path / "n", *SMALL]
    fails(capsys, 1, f"{bare}:1: no gold links", *command, "--attention", "oracle")
    assert not (tmp_path / "n").exists()


def test_a_model_that_reads_by_links(folder, tmp_path, capsys):
    out = tmp_path / "m"
    assert main(["train", *files(folder), "--out", str(out), "--epochs", "1", *SMALL, "--attention", "oracle"]) == 0
    capsys.readouterr()
    (tmp_path / "in.txt").write_text("मैं\n", encoding="utf-8")
    fails(
        capsys,
        1,
        "attention 'oracle', which reads by gold links that text alone",
        "translate",
        out,
        tmp_path / "in.txt",
    )
    bare = tmp_path / "bare.tsv"
    bare.write_text("मैं\tI\t0-0\nमैं\tI\n", encoding="utf-8")
    for command in ("evaluate", "align"):
        fails(capsys, 1, f"{bare}:2: no gold links", command, out, bare)
    assert main(["evaluate", str(out), str(folder / "valid.tsv"), "--beam", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pairs"] == 20 and result["aer"] < 0.3
    assert main(["align", str(out), str(folder / "valid.tsv")]) == 0
    rows = [row.split("\t") for row in (folder / "valid.tsv").read_text(encoding="utf-8").splitlines()]
    for line, row in zip(capsys.readouterr().out.splitlines(), rows, strict=True):
        assert {link[:2] for link in parse_links(line)} <= {link[:2] for link in parse_links(row[2])}


# ---------------------------------------------------------------- translate


def translate(folder, text, *options):
    done = start("translate", folder / "model", *options, input=text.encode())
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return done.stdout.decode()


def test_one_line_in_one_line_out(folder, tmp_path, capsys):
    lines = [*(pair.source for pair in corpus.generate(30)), "", "unknown words", "मैं\u2028खाना", "end"]
    text = "\n".join(lines)  # no newline at the end
    (tmp_path / "in.txt").write_text(text, encoding="utf-8")
    links = tmp_path / "links.txt"
    out = translate(folder, text, "--align", links)
    assert len(out.split("\n")) == len(lines) + 1 and out.endswith("\n")
    assert out.split("\n")[30] == ""
    aligned = links.read_text(encoding="utf-8").split("\n")
    assert len(aligned) == len(lines) + 1 and all(parse_links(line) is not None for line in aligned)
    assert main(["translate", str(folder / "model"), str(tmp_path / "in.txt")]) == 0
    assert capsys.readouterr().out == out
    assert translate(folder, "") == ""


def test_jsonl_and_nbest(folder, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("मैं खाना खा रहा हूँ\n\n", encoding="utf-8")
    given = ["translate", str(folder / "model"), str(tmp_path / "in.txt"), "--nbest", "3"]
    assert main([*given, "--jsonl"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 2
    first = records[0]
    assert first["source_tokens"] == ["मैं", "खाना", "खा", "रहा", "हूँ", "</s>"] and len(first["nbest"]) == 3
    assert len(first["weights"]) == len(first["tokens"]) and len(first["weights"][0]) == 6
    assert abs(sum(first["weights"][0]) - 1) < 1e-5
    assert records[1] == {
        "text": "", "score": 0.0, "tokens": [], "weights": [], "source": "", "source_tokens": ["</s>"],
        "nbest": [{"text": "", "score": 0.0, "tokens": [], "weights": []}],
    }  # fmt: skip
    assert main(given) == 0
    rows = [row.split(" ||| ") for row in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["0", "0", "0", "1"]
    assert [row[1] for row in rows[:3]] == [other["text"] for other in first["nbest"]]


def test_a_bad_line_ends_translation_after_the_good_ones(folder):
    done = start("translate", folder / "model", input="मैं\nमैं\n".encode() + b"\xff\nx\n")
    assert done.returncode == 1 and done.stdout.count(b"\n") == 2
    assert done.stderr == b"dhyan: stdin:3:1: byte 0xff is not valid UTF-8\n"


def test_a_line_of_too_many_tokens_is_named(folder, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("x " * 501 + "\n", encoding="utf-8")
    fails(capsys, 1, f"{path}:1: the source has 501 tokens, expected at most 500", "translate", folder / "model", path)
    fails(capsys, 1, "gone.txt", "translate", folder / "model", tmp_path / "gone.txt")
    fails(capsys, 1, "no/such", "translate", folder / "model", folder / "valid.tsv", "--align", tmp_path / "no/such")


def test_a_reader_that_leaves_early_is_no_error_message(folder):
    text = ("मैं खाना खा रहा हूँ\n" * 20_000).encode()
    process = subprocess.Popen(
        command("translate", folder / "model", "--beam", 1),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(text)
    process.stdin.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


# ---------------------------------------------------------------- evaluate, align, info


def test_evaluate_prints_every_figure(folder, capsys):
    """Every key that `evaluate --json` promises, with its type and range, and no other."""
    given = ["evaluate", str(folder / "model"), str(folder / "valid.tsv"), "--beam", "2"]
    assert main([*given, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == "" and captured.out.count("\n") == 1
    assert set(result) == {
        "pairs", "bleu", "chrf", "ter", "signature", "exact_match", "token_error_rate", "perplexity", "by_length",
        "aer", "failures",
    }  # fmt: skip
    assert result["pairs"] == 20 and type(result["pairs"]) is int
    assert all(type(result[name]) is float and result[name] >= 0 for name in ("bleu", "chrf", "ter"))
    assert result["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert 0 <= result["exact_match"] <= 1 and result["token_error_rate"] >= 0 and 0 <= result["aer"] <= 1
    assert 1 < result["perplexity"] < 1000
    words = [len(row.split("\t")[0].split()) for row in (folder / "valid.tsv").read_text(encoding="utf-8").splitlines()]
    assert [list(bucket) for bucket in result["by_length"]] == [["from", "to", "pairs", "bleu"]]
    bucket = result["by_length"][0]  # fewer than 100 pairs are one range
    assert (bucket["from"], bucket["to"], bucket["pairs"]) == (min(words), max(words), 20) and bucket["bleu"] >= 0
    assert set(result["failures"]) == {"omission", "repetition", "hallucination", "wrong_alignment"}
    assert all(type(count) is int and 0 <= count <= 20 for count in result["failures"].values())
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["pairs", "20"] and lines[-1] == result["signature"]
    shown = {line[:18].strip(): line[18:].split() for line in lines[:-1]}
    assert list(shown) == [
        "pairs", "BLEU", "chrF", "TER", "exact match", "token error rate", "perplexity", "AER",
        f"BLEU {min(words)}-{max(words)} words", "omission", "repetition", "hallucination", "wrong alignment",
    ]  # fmt: skip
    assert shown["AER"] == [f"{result['aer']:.4f}"] and shown["perplexity"] == [f"{result['perplexity']:.3f}"]
    assert shown["exact match"] == [f"{100 * result['exact_match']:.2f}", "%"]


def test_help_of_train_shows_every_default(capsys):
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    given = [(flag, table.options()[key]) for table in TABLES.values() for flag, key in table.flags().items()]
    for option, known in given:
        default, kind = known.default, known.kind
        own = re.search(rf" {option}[ ,](.*?)(?= --[a-z]|$)", text[text.index("positional") :])[1]
        if kind is bool:
            assert default is False and "(false" not in own.lower()
        elif default not in (None, ""):
            shown = re.search(r"\(([^()]*)\)(?: [\w, ]+\[\w+\]:)?$", own)[1]
            assert kind(shown) == default, option


def test_a_sentence_where_a_file_is_expected(folder, capsys):
    assert main(["translate", str(folder / "model"), "मैं खाना खा रहा हूँ"]) == 1
    assert capsys.readouterr().err == (
        "dhyan: translate: मैं खाना खा रहा हूँ: no such file; INPUT names a file, a sentence comes by standard input\n"
    )


def test_a_file_of_pairs_is_translated_with_a_note(folder, capsys):
    path = str(folder / "valid.tsv")
    assert main(["translate", str(folder / "model"), path, "--beam", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 20
    assert captured.err == (
        f"dhyan: {path}:1: the line has a tab and is read whole; a source column alone is: cut -f1 {path}\n"
    )


def test_what_is_infinite_is_null_in_json(folder, capsys, monkeypatch):
    monkeypatch.setattr("dhyan.report.evaluation._loss", lambda forced: 1e6)
    given = ["evaluate", str(folder / "model"), str(folder / "valid.tsv"), "--beam", "1"]
    assert main([*given, "--json"]) == 0
    line = capsys.readouterr().out
    assert "Infinity" not in line and json.loads(line)["perplexity"] is None
    assert main(given) == 0
    assert re.search(r"^perplexity +inf$", capsys.readouterr().out, re.MULTILINE)
    assert main(["report", *given[1:], "--out", str(folder / "inf.html")]) == 0
    assert "<td>inf</td>" in (folder / "inf.html").read_text(encoding="utf-8")


def test_evaluate_tokenize(folder, capsys):
    given = ["evaluate", str(folder / "model"), str(folder / "valid.tsv"), "--beam", "1", "--json"]
    assert main([*given, "--tokenize", "none"]) == 0
    assert "|tok:none|" in json.loads(capsys.readouterr().out)["signature"]


def test_evaluate_without_links_has_no_aer(folder, tmp_path, capsys):
    rows = [row.split("\t")[:2] for row in (folder / "valid.tsv").read_text(encoding="utf-8").splitlines()]
    (tmp_path / "plain.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["evaluate", str(folder / "model"), str(tmp_path / "plain.tsv"), "--beam", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["aer"] is None


def test_evaluate_without_the_text_extra(folder):
    code = "import sys; sys.modules['sacrebleu'] = None; from dhyan.cli import main; sys.exit(main(sys.argv[1:]))"
    given = ["evaluate", folder / "model", folder / "valid.tsv", "--beam", "1", "--json", "--against", folder / "model"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, timeout=60)
    result = json.loads(done.stdout)
    assert done.returncode == 0 and all(result[name] is None for name in ("bleu", "chrf", "ter", "signature"))
    assert [bucket["bleu"] for bucket in result["by_length"]] == [None]
    assert done.stderr.count("\n") == 1 and "pip install 'dhyan[text]'" in done.stderr
    assert set(result["paired_bootstrap"]["measures"]) == {"exact_match", "token_error_rate"}


def test_two_systems_are_compared(folder, tmp_path, capsys):
    """Models and files of outputs, in any mix."""
    model, test, other = folder / "model", folder / "valid.tsv", tmp_path / "other.txt"
    rows = [row.split("\t") for row in test.read_text(encoding="utf-8").splitlines()]
    other.write_text("".join(row[1] + "\n" for row in rows), encoding="utf-8")
    given = ["evaluate", str(model), str(test), "--against", str(other), "--beam", "1"]
    assert main([*given, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    second, paired = result["against"], result["paired_bootstrap"]
    assert set(second) == set(result) - {"against", "paired_bootstrap"}
    assert second["bleu"] == pytest.approx(100) and second["perplexity"] is second["aer"] is None
    assert paired["samples"] == 1000 and set(paired["measures"]) == {
        "bleu", "chrf", "ter", "exact_match", "token_error_rate"
    }  # fmt: skip
    for name, measure in paired["measures"].items():
        assert measure["score"] == pytest.approx(result[name]) and measure["against"] == pytest.approx(second[name])
        assert measure["p_value"] == pytest.approx(1 / 1001)  # two epochs against the references themselves
    assert main(given) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["model", "other.txt", "p"] and "Koehn 2004" in out
    shown = {line[:18].strip(): line[18:].split() for line in out.splitlines()}
    assert shown["BLEU"] == [f"{result['bleu']:.2f}", "100.00", "0.001"] and shown["AER"][1] == "-"
    assert main(["translate", str(model), "--beam", "1", "--align", os.devnull, str(sources(rows, tmp_path))]) == 0
    (tmp_path / "own.txt").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "own.txt"), str(test), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    for name in ("pairs", "bleu", "chrf", "ter", "exact_match", "token_error_rate", "by_length"):
        assert own[name] == result[name]


def sources(rows, folder):
    (folder / "sources.txt").write_text("".join(row[0] + "\n" for row in rows), encoding="utf-8")
    return folder / "sources.txt"


def test_outputs_that_do_not_fit_the_test(folder, tmp_path, capsys):
    short, test = tmp_path / "short.txt", folder / "valid.tsv"
    short.write_text("a\n\n", encoding="utf-8")
    message = "short.txt has 2 lines, expected 20: one output for each pair of "
    fails(capsys, 1, message, "evaluate", short, test)
    fails(capsys, 1, message, "evaluate", folder / "model", test, "--against", short)
    fails(capsys, 1, "gone: no such model folder", "evaluate", folder / "model", test, "--against", "gone")
    (tmp_path / "bad.tsv").write_text("a b\tx\nno target\nc\ty\n", encoding="utf-8")
    for text in ("x\nwhatever\ny\n", "x\ny\n"):  # with the bad line's output, and without
        short.write_text(text, encoding="utf-8")
        assert main(["evaluate", str(short), str(tmp_path / "bad.tsv"), "--bad-lines", "skip", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["exact_match"] == 1


def test_align_writes_pharaoh(folder, tmp_path, capsys):
    assert main(["align", str(folder / "model"), str(folder / "valid.tsv")]) == 0
    out = capsys.readouterr().out
    rows = [row.split("\t") for row in (folder / "valid.tsv").read_text(encoding="utf-8").splitlines()]
    assert out.count("\n") == len(rows)
    for line, row in zip(out.splitlines(), rows, strict=True):
        for source, target, sure in parse_links(line):
            assert source < len(row[0].split()) and target < len(row[1].split()) and sure
    (tmp_path / "s").write_text("मैं\n", encoding="utf-8")
    (tmp_path / "t").write_text("I am\n", encoding="utf-8")
    assert main(["align", str(folder / "model"), "--source", str(tmp_path / "s"), "--target", str(tmp_path / "t")]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    (tmp_path / "t").write_text("I am\nmore\n", encoding="utf-8")
    fails(capsys, 1, "has 1 lines", "align", folder / "model", "--source", tmp_path / "s", "--target", tmp_path / "t")


def test_align_of_two_columns_counts_their_tokens(tmp_path, capsys):
    """Of `--columns 1,2:3` a source is the first column's characters and then the tags, and links count those."""
    rows = [
        f"{verb}ar\tpos=V,per={n}\t{verb}{end}" for verb in ("habl", "am", "fij") for n, end in enumerate("oasn", 1)
    ]
    (tmp_path / "x.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    path, model = str(tmp_path / "x.tsv"), str(tmp_path / "model")
    levels = ["--source-level", "char", "--target-level", "char", "--columns", "1,2:3"]
    assert main(["train", path, path, "--out", model, "--epochs", "2", *levels, *SMALL]) == 0
    capsys.readouterr()
    assert main(["align", model, path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows)
    translator = load(model)
    for line, row in zip(lines, rows, strict=True):
        first, second, target = row.split("\t")
        (found,) = translator.align([f"{first}\t{second}"], [target])
        assert found.source_tokens == [
            *first,
            *(f"[{tag}]" for tag in second.split(",")),
            SOURCE_END,
        ] and found.tokens == list(target)
        links = [(source, at) for source, at, _ in parse_links(line)]
        assert links == sorted(found.links()) and all(source < len(found.source_tokens) - 1 for source, _ in links)
        assert len({at for _, at in links}) == len(links)  # at most one link a target token
    assert main(["evaluate", model, path, "--json", "--beam", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["by_length"][0]["from"] == 2  # words of both columns


def test_a_damaged_model_is_named(folder, tmp_path, capsys):
    for name in os.listdir(folder / "model"):
        (tmp_path / name).write_bytes((folder / "model" / name).read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    fails(capsys, 1, "model.safetensors", "evaluate", tmp_path, folder / "valid.tsv")


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("dhyan", "numpy", "isa", "isas", "threads", "openmp", "threading", "cuda"))
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["isa"] in facts["isas"] and facts["threads"] >= 1


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_while_waiting_for_input(folder, number, code):
    """At a terminal, where every line is answered at once: the answer to one says that it waits for the next."""
    master, terminal = os.openpty()
    process = subprocess.Popen(
        command("translate", folder / "model"), stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(terminal)
    os.write(master, b"x\n")
    assert process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == code, err
    assert out == b"" and err.count(b"\n") == 1 and err.startswith(b"dhyan: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_while_training_save_and_tell_how_to_go_on(folder, tmp_path, number, code):
    out = tmp_path / "m"
    process = subprocess.Popen(
        command("train", *files(folder), "--out", out, "--epochs", 10_000, "--patience", 10_000, *SMALL),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(2):  # heading and first epoch
        assert process.stderr.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"--resume --out {out}".encode() in err.splitlines()[-1]
    done = start("train", *files(folder), "--out", out, "--resume", "--epochs", 1)
    assert done.returncode == 0
