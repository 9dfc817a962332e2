"""Commands and options. Light: `dhyan --version` and usage errors import nothing numerical."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dhyan.errors import nearest_first

if TYPE_CHECKING:
    from dhyan.search.options import SearchOptions

COMMANDS = {
    "demo": "train on the built-in Hindi-English corpus without and with attention, and show both",
    "train": "train a model on parallel text",
    "translate": "translate lines from a file or stdin",
    "evaluate": "measure a model on a test file; what counts as a failure is defined in the report",
    "report": "evidence cards, figures and curves of a model on a test file, as one HTML page without network",
    "serve": "a local page that translates word by word and shows the weights, and its JSON end point; Ctrl-C ends it",
    "average": "write a model whose weights are the mean of those of several folders",
    "align": "word alignments of given pairs, Pharaoh format",
    "shortlist": "learn which target tokens follow from which source tokens, for --shortlist of translate and evaluate",
    "info": "versions, instruction sets, threads, CUDA",
}

SCORINGS = (  # dhyan.scorings(), which would import numpy to print a help text
    "none", "uniform", "oracle", "dot", "scaled_dot", "general", "additive", "concat", "cosine", "location",
    "location_sensitive", "coverage",
)  # fmt: skip

CHOICES = ("failures", "worst", "longest", "best", "first")  # those of dhyan.report


def radius(text: str) -> int | str:
    """A number where it is one; what other texts mean, the configuration knows."""
    try:
        return int(text)
    except ValueError:
        return text


# Option of train -> (table, key, type). No defaults here: what is not given comes from --config or config.py.
TRAIN_OPTIONS: dict[str, tuple[str, str, Callable[[str], Any], str]] = {
    "--source-level": ("data", "source_level", str, "char, word or subword"),
    "--target-level": ("data", "target_level", str, "char, word or subword"),
    "--columns": ("data", "columns", str, "source and target column of a TSV, such as 1:2; 1,2:3 joins two sources"),
    "--bad-lines": ("data", "bad_lines", str, "error, or skip and count"),
    "--source-vocabulary": (
        "data",
        "source_vocabulary",
        int,
        "most source tokens kept, or subwords; 0: all, or as data allow",
    ),
    "--target-vocabulary": ("data", "target_vocabulary", int, "the same of the target"),
    "--min-count": ("data", "min_count", int, "rarer tokens become unknown"),
    "--normalization": ("data", "normalization", str, "Unicode form of every text: nfc, nfkc or none"),
    "--subword-model": ("data", "subword_model", str, "how subwords are learned: unigram or bpe"),
    "--byte-fallback": ("data", "byte_fallback", bool, "subwords: unseen characters enter as bytes, not as unknown"),
    "--max-length": ("data", "max_length", int, "longer sentences (tokens) are left out"),
    "--attention": ("model", "attention", str, f"a scoring: {', '.join(SCORINGS)}"),
    "--cell": ("model", "cell", str, "lstm, gru or rnn"),
    "--order": ("model", "order", str, "bahdanau or luong"),
    "--embedding": ("model", "embedding", int, "width E of the embeddings"),
    "--hidden": ("model", "hidden", int, "width H of the hidden states"),
    "--layers": ("model", "layers", int, "layers of encoder and decoder"),
    "--layer-norm": ("model", "layer_norm", bool, "normalise the sums inside recurrent cells"),
    "--residual": ("model", "residual", bool, "from the second layer on, add what a layer reads to its output"),
    "--tie": (
        "model",
        "tie",
        str,
        "one table for words: none, output (target embedding and output layer), all (source too)",
    ),
    "--dropout": ("model", "dropout", float, "share of values dropped, 0 <= p < 1"),
    "--variational": ("model", "variational", bool, "dropout by one mask a sentence"),
    "--recurrent-dropout": ("model", "recurrent_dropout", float, "the same of recurrent states, one mask a sentence"),
    "--embedding-dropout": ("model", "embedding_dropout", float, "share of word types dropped, at all their places"),
    "--window": (
        "model",
        "window",
        radius,
        "read only this near to min(t, length - 1); predictive:RADIUS: near to a learned place",
    ),
    "--normalize": ("model", "normalize", str, "how scores become weights: softmax, sparsemax or monotonic"),
    "--heads": ("model", "heads", int, "attention heads, each on its own slice of states and memory"),
    "--temperature": ("model", "temperature", float, "divides every score before they become weights"),
    "--normalized": ("model", "normalized", bool, "additive scores with g v / |v| in place of v"),
    "--copy": ("model", "copy", bool, "may copy source words where the attention looks (pointer-generator)"),
    "--max-source": ("model", "max_source", int, "positions the scoring location knows; 0: the longest source"),
    "--batch": ("train", "batch", int, "sentences per update"),
    "--epochs": ("train", "epochs", int, "most passes over the training data"),
    "--updates": ("train", "updates", int, "most updates; 0 is no limit"),
    "--optimizer": ("train", "optimizer", str, "adamw, adam or sgd"),
    "--lr": ("train", "lr", float, "learning rate"),
    "--lr-decay": ("train", "lr_decay", float, "what the plateau schedule multiplies it with"),
    "--schedule": ("train", "schedule", str, "of the learning rate: plateau, cosine, inverse_sqrt or constant"),
    "--warmup": ("train", "warmup", int, "updates until the learning rate is reached"),
    "--clip": ("train", "clip", float, "global gradient norm; 0 is no limit"),
    "--beta1": ("train", "beta1", float, "decay of Adam's mean of gradients"),
    "--beta2": ("train", "beta2", float, "decay of Adam's mean of their squares"),
    "--momentum": ("train", "momentum", float, "of sgd"),
    "--weight-decay": (
        "train",
        "weight_decay",
        float,
        "decoupled from the gradient (adamw), or an L2 penalty (adam, sgd)",
    ),
    "--patience": ("train", "patience", int, "stop after so many validations without a better one"),
    "--average": ("train", "average", int, "validate and keep the mean of the weights after the last N epochs; 0: off"),
    "--select": ("train", "select", str, "what the best model is chosen by: error, loss, bleu, chrf or exact"),
    "--validate-every": ("train", "validate_every", int, "validate and save after every N updates too; 0: off"),
    "--time": ("train", "time", float, "stop after so many minutes; 0 is no limit"),
    "--label-smoothing": ("train", "label_smoothing", float, "share of probability spread over the vocabulary"),
    "--scheduled-sampling": (
        "train",
        "scheduled_sampling",
        float,
        "share of target tokens read as the model writes them",
    ),
    "--sampling-ramp": ("train", "sampling_ramp", int, "updates until that share is reached"),
    "--guided": ("train", "guided", float, "weight of the loss towards the gold links of the third column"),
    "--coverage": ("train", "coverage", float, "weight of the loss against reading a position twice"),
    "--from": ("train", "fine_tune", str, "a model folder to start from: its weights, vocabularies and [model]"),
    "--precision": ("train", "precision", str, "float32, float64, or bf16: products in bfloat16 where the CPU can"),
    "--seed": ("train", "seed", int, "of weights, batches and dropout"),
}


class UsageError(Exception):
    """A command line that cannot be run; one line, exit code 2."""


class _Parser(argparse.ArgumentParser):
    fill: Callable[[argparse.ArgumentParser], None] | None = None  # completes the texts when they are asked for

    def format_help(self) -> str:
        if self.fill is not None:
            self.fill(self)
            self.fill = None
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{_short(self)}{message}; see {self.prog} --help")


def _short(parser: argparse.ArgumentParser) -> str:
    """The name of the command, for messages that begin with "dhyan: " anyway."""
    name = parser.prog.removeprefix("dhyan").strip()
    return f"{name}: " if name else ""


def parse(argv: Sequence[str]) -> argparse.Namespace | None:
    """The options of a command line, None where nothing is left to do. Errors: UsageError, nearest names first."""
    parser, commands = _build()
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise UsageError(f"command is {argv[0]!r}, expected one of: {', '.join(nearest_first(argv[0], COMMANDS))}")
    arguments, unknown = parser.parse_known_args(argv)
    if arguments.command:
        _after_ensemble(arguments)
        unknown = _after_options(arguments, unknown, commands[arguments.command])
    if unknown:
        where = commands[arguments.command] if arguments.command else parser
        _refuse(next(filter(_is_option, unknown), unknown[0]), where)
    if arguments.version:
        print(f"dhyan {version()}")
        return None
    if arguments.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return arguments


def _after_options(arguments: argparse.Namespace, unknown: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """What is still unknown once files given after options stand in their places, which argparse leaves empty."""
    if any(map(_is_option, unknown)):
        return unknown
    left = list(unknown)
    for action in parser._actions:
        if left and action.nargs == "?" and not action.option_strings and getattr(arguments, action.dest) is None:
            setattr(arguments, action.dest, left.pop(0))
    return left


def _after_ensemble(arguments: argparse.Namespace) -> None:
    """A file behind the folders of --ensemble stands in its own place, as it does behind other options."""
    folders = getattr(arguments, "ensemble", None) or []
    name = "input" if arguments.command == "translate" else "test"
    if len(folders) > 1 and getattr(arguments, name, None) is None and os.path.isfile(folders[-1]):
        setattr(arguments, name, folders.pop())


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _refuse(word: str, parser: argparse.ArgumentParser) -> NoReturn:
    option = word.split("=")[0]
    if not option.startswith("-"):
        raise UsageError(f"{_short(parser)}got the further argument {word!r}; see {parser.prog} --help")
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    near = ", ".join(nearest_first(option, known)[:3])
    raise UsageError(f"{_short(parser)}unknown option {option!r}, did you mean: {near}")


def version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dhyan")
    except PackageNotFoundError:  # run from a source tree
        from dhyan.ops.machine import show_config

        return str(show_config()["version"])


def _build() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="dhyan", description="Encode-attend-decode models, and what they attend to.", allow_abbrev=False
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    added = parser.add_subparsers(dest="command", metavar="COMMAND")
    own = {
        name: added.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        for name, text in COMMANDS.items()
    }
    own["demo"].add_argument("--out", default="dhyan-demo", metavar="DIR", help="where to write (dhyan-demo)")
    _add_train(own["train"])
    own["train"].fill = _show_defaults
    own["train"].description = "Train a model on parallel text. In brackets: the defaults, and the tables of --config."
    _add_model(own["translate"])
    own["translate"].add_argument(
        "input", nargs="?", metavar="INPUT", help="a text file, a sentence a line, .gz too; default stdin"
    )
    own["translate"].add_argument("--jsonl", action="store_true", help="one JSON object a line, weights included")
    own["translate"].add_argument("--align", metavar="FILE", help="also write Pharaoh alignments, one line a line")
    _add_replacement(own["translate"])
    add_ensemble(own["translate"])
    add_search(own["translate"], nbest=True)
    _add_speed(own["translate"])
    add_constraints(own["translate"])
    _add_model(own["evaluate"], ", or a file of outputs, one a line")
    _add_pairs(own["evaluate"], "test")
    own["evaluate"].add_argument("--tokenize", default="13a", metavar="NAME", help="sacreBLEU's tokenizer (13a)")
    own["evaluate"].add_argument(
        "--against", metavar="DIR2", help="a second one, compared by paired bootstrap resampling (Koehn 2004)"
    )
    own["evaluate"].add_argument("--json", action="store_true", help="print one JSON object")
    add_ensemble(own["evaluate"])
    _add_replacement(own["evaluate"])
    add_search(own["evaluate"])
    _add_speed(own["evaluate"])
    _add_report(own["report"])
    _add_serve(own["serve"])
    _add_model(own["align"])
    _add_pairs(own["align"], "pairs")
    own["average"].add_argument("models", nargs="+", metavar="DIR", help="model folders of one configuration")
    own["average"].add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    _add_model(own["shortlist"])
    _add_pairs(own["shortlist"], "pairs")
    own["info"].add_argument("--json", action="store_true", help="print one JSON object")
    return parser, own


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", nargs="?", metavar="TRAIN", help="TSV file: source TAB target, .gz too")
    parser.add_argument(
        "valid", nargs="?", metavar="VALID", help="TSV file of other pairs, to choose the best epoch by"
    )
    parser.add_argument("--source", nargs=2, metavar=("TRAIN", "VALID"), help="instead: one source sentence a line")
    parser.add_argument("--target", nargs=2, metavar=("TRAIN", "VALID"), help="and one target sentence a line")
    parser.add_argument("--out", metavar="DIR", help="the model folder to write; required")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that --out holds")
    parser.add_argument("--config", metavar="FILE.toml", help="tables [model], [train], [data]; options win over it")
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration as TOML and exit")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run of --out stands")
    titles = {"data": "text, [data]", "model": "model, [model]", "train": "training, [train]"}
    groups = {table: parser.add_argument_group(title) for table, title in titles.items()}
    for option, (table, key, kind, text) in TRAIN_OPTIONS.items():
        if kind is bool:
            groups[table].add_argument(option, dest=key, action=argparse.BooleanOptionalAction, help=text)
        else:
            name = "DIR" if option == "--from" else "NAME" if kind is str else kind.__name__.upper()
            groups[table].add_argument(option, dest=key, type=kind, metavar=name, help=text)


def _show_defaults(parser: argparse.ArgumentParser) -> None:
    """Add to the texts of train's options what holds where none is given."""
    from dhyan.training.config import TABLES

    tables = {key: table for table, key, _, _ in TRAIN_OPTIONS.values()}
    for action in parser._actions:
        value = getattr(TABLES[tables[action.dest]], action.dest) if action.dest in tables else None
        if not (value is None or value is False or value == ""):
            action.help = f"{action.help} ({value:g})" if isinstance(value, float) else f"{action.help} ({value})"


def _add_speed(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument("--weights", metavar="NAME", help="bfloat16 or int8: rounded, for decoding few lines at a time")
    group.add_argument(
        "--shortlist", type=int, default=0, metavar="N",
        help="choose from N target tokens for each source token and N frequent ones (0: all); see dhyan shortlist",
    )  # fmt: skip


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_pairs(parser, "test", "; sources alone, by either, are shown but not measured")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page to write")
    parser.add_argument("--against", metavar="DIR", help="a second model to compare with")
    parser.add_argument(
        "--choose",
        default=",".join(CHOICES[:4]),
        metavar="NAMES",
        help=f"sentences to show: {', '.join(CHOICES)}; several at commas (%(default)s)",
    )
    parser.add_argument("--cards", type=at_least_1, default=4, metavar="N", help="most sentences for each of them (4)")
    parser.add_argument(
        "--sentences", type=at_least_1, nargs="+", default=[], metavar="N", help="instead: these, counted from 1"
    )
    parser.add_argument("--tokenize", default="13a", metavar="NAME", help="sacreBLEU's tokenizer (13a)")
    add_ensemble(parser)
    add_search(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument(
        "--port", type=_port, default=8000, metavar="N", help="where to listen (8000); 0 is any free one"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="whose address to listen at (127.0.0.1: this machine alone)"
    )
    parser.add_argument("--against", metavar="DIR", help="a second model to compare with")
    parser.add_argument("--examples", metavar="FILE", help="text or TSV file whose first lines the page offers to try")
    _add_speed(parser)


def _add_model(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("model", metavar="DIR", help=f"a model folder{more}")


def _add_replacement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replace-unknown", action="store_true", help="put the source word it looks at in place of an unknown word"
    )
    parser.add_argument(
        "--dictionary", metavar="FILE", help="and translate that word by a TSV file, source TAB target, where it has it"
    )


def _add_pairs(parser: argparse.ArgumentParser, name: str, more: str = "") -> None:
    parser.add_argument(name, nargs="?", metavar=name.upper(), help="TSV file in the columns the model was trained on")
    parser.add_argument("--source", metavar="FILE", help="instead: a file of source lines")
    parser.add_argument("--target", metavar="FILE", help=f"and a file of target lines{more}")
    parser.add_argument("--bad-lines", default="error", metavar="NAME", help="error, or skip and count (error)")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 0 to 65535")
    return int(text)


def at_least_1(text: str) -> int:
    """An integer from 1 on, or argparse's error."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


# Option -> (field of SearchOptions, type, help). No defaults here: those of SearchOptions hold.
SEARCH_OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "--beam": ("beam", at_least_1, "hypotheses kept (5); 1 is greedy"),
    "--max-length": ("max_length", at_least_1, "most tokens of an output, the end symbol counted (from the source)"),
    "--min-length": ("min_length", int, "fewest tokens of an output (0)"),
    "--length-penalty": ("length_penalty", float, "A: log-probability / length^A (1); 0 favours short outputs"),
    "--length-form": ("length_form", str, "power, or gnmt: / ((5 + length) / 6)^A (power)"),
    "--coverage-penalty": ("coverage_penalty", float, "B: prefer outputs that read all of the source, 0.2 say (0)"),
    "--no-repeat-ngram": ("no_repeat_ngram", int, "no N tokens in a row stand in an output twice (0: they may)"),
    "--no-unknown": ("no_unknown", bool, "never write the unknown symbol"),
    "--sample": ("sample", bool, "draw outputs at random instead of searching for the likeliest"),
    "--temperature": ("temperature", float, "with --sample: below 1 likelier tokens, above 1 more variety (1)"),
    "--top-k": ("top_k", int, "with --sample: draw from the K likeliest tokens (0: all)"),
    "--top-p": ("top_p", float, "with --sample: draw from the likeliest tokens of total probability P (1)"),
    "--seed": ("seed", int, "with --sample: the same seed and sentence, the same output (0)"),
}


def add_search(parser: argparse.ArgumentParser, *, nbest: bool = False) -> None:
    """The options of SEARCH_OPTIONS; nbest: --nbest too, where the command writes more than one output."""
    group = parser.add_argument_group("decoding")
    for option, (field, kind, text) in SEARCH_OPTIONS.items():
        if kind is bool:
            group.add_argument(option, dest=field, action="store_true", default=None, help=text)
        else:
            metavar = "P" if kind is float else "NAME" if kind is str else "N"
            group.add_argument(option, dest=field, type=kind, metavar=metavar, help=text)
        if nbest and option == "--beam":
            group.add_argument("--nbest", type=at_least_1, default=1, metavar="N", help="write N outputs a line (1)")


def add_constraints(parser: argparse.ArgumentParser) -> None:
    """--prefix, --include and their files, see `inputs.Constraints`."""
    group = parser.add_argument_group("what outputs hold")
    prefixes = group.add_mutually_exclusive_group()
    prefixes.add_argument("--prefix", metavar="TEXT", help="every output begins with this text")
    prefixes.add_argument("--prefix-file", metavar="FILE", help="one prefix a line of input; an empty line asks none")
    group.add_argument(
        "--include", action="append", default=[], metavar="PHRASE", help="every output holds this phrase; repeatable"
    )
    group.add_argument("--include-file", metavar="FILE", help="phrases for each line of input, tabs between them")


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    """--ensemble."""
    parser.add_argument(
        "--ensemble", nargs="+", default=[], metavar="DIR",
        help="further model folders with the same vocabularies: the mean of all models' probabilities decides",
    )  # fmt: skip


def search_options(options: argparse.Namespace) -> SearchOptions:
    """What the command line says of decoding. Errors: ValueError."""
    from dhyan.search.options import SearchOptions

    given = {field: getattr(options, field) for field, _, _ in SEARCH_OPTIONS.values()}
    nbest = getattr(options, "nbest", 1)
    if given["beam"] is None and not given["sample"]:
        given["beam"] = max(SearchOptions.beam, nbest)
    elif given["beam"] is not None and nbest > given["beam"] and not given["sample"]:
        raise ValueError(f"--nbest is {nbest}, expected at most --beam {given['beam']}")
    return SearchOptions.of(nbest=nbest, **given)
