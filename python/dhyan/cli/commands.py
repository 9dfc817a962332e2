"""What each command does, once its options are parsed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dhyan import metrics, ops, strict_json
from dhyan.errors import DataError
from dhyan.metrics.measures import EXACT_MATCH
from dhyan.model.config import ModelConfig
from dhyan.text.config import DataConfig
from dhyan.text.lexicon import Lexicon
from dhyan.text.pairs import Line, scan_file, scan_stream
from dhyan.training.averaging import average
from dhyan.training.checkpoint import FolderLock
from dhyan.training.config import TABLES, TrainConfig, read_toml, to_toml
from dhyan.training.data import check_gold
from dhyan.training.folder import SHORTLIST, load_folder, load_progress, load_tables, save_lexicon
from dhyan.training.loop import train
from dhyan.translate.translation import Translation
from dhyan.translate.translator import Translator, load

from .evaluate import evaluate
from .inputs import (
    Constraints,
    check_bad_lines,
    check_files,
    check_tokenize,
    located,
    model_and_pairs,
    note,
    note_skipped,
    pairs_for,
    read,
    replacement_of,
    search_of,
    speed_of,
)
from .parser import TRAIN_OPTIONS, UsageError
from .progress import Progress

if TYPE_CHECKING:
    from dhyan.report.choice import Sentences
    from dhyan.serve.work import Served

CHUNK = 512  # lines translated together when nobody waits for the next one
Tables = dict[str, dict[str, Any]]


def run(options: argparse.Namespace) -> None:
    """Run options.command."""
    commands = {
        "demo": _demo, "train": _train, "translate": _translate, "evaluate": evaluate, "report": _report,
        "serve": serve, "average": _average, "align": _align, "shortlist": _shortlist, "info": _info,
    }  # fmt: skip
    commands[options.command](options)


def _demo(options: argparse.Namespace) -> None:
    from .demo import demo

    demo(options.out)


# ---------------------------------------------------------------- train


def _train(options: argparse.Namespace) -> None:
    model, settings, data = _configuration(options)
    if options.print_config:
        tables = {"model": model.to_dict(), "train": settings.to_dict(), "data": data.to_dict()}
        for size in ("source_size", "target_size"):  # the vocabularies decide
            del tables["model"][size]
        print(to_toml(tables), end="")
        return
    files = _training_files(options)
    if not options.out:
        raise UsageError("train: --out DIR is missing")
    pairs = [read(source, target, data) for source, target in files]
    check_gold(model, settings, data, [(name, part) for (name, _), part in zip(files, pairs, strict=True)])
    done = load_progress(Path(options.out)).epoch if options.resume else 0
    with Progress(model.attention, settings.select, done, settings.epochs) as progress:
        train(
            model, pairs[0], pairs[1], options.out, options=settings, data=data, resume=options.resume,
            overwrite=options.overwrite, on_report=progress.report, on_step=progress.step,
        )  # fmt: skip
    best = progress.best
    summary = (
        f" epoch {best.epoch}, validation loss {best.valid_loss:.4f}, "
        f"{EXACT_MATCH.name} {EXACT_MATCH.text(best.exact_match)}"
        if best
        else ""
    )
    print(f"{options.out}{':' if summary else ''}{summary}")


def _configuration(options: argparse.Namespace) -> tuple[ModelConfig, TrainConfig, DataConfig]:
    """Defaults, then the stopped run's, the fine-tuned model's or the file's values, then the options.

    Errors of the options are usage errors.
    """
    if options.config:
        tables = read_toml(options.config)
        where = options.config
    elif options.resume and options.out:
        model, settings, data = load_tables(Path(options.out))
        tables, where = {"model": model.to_dict(), "train": settings.to_dict(), "data": data.to_dict()}, options.out
    else:
        tables, where = {}, "defaults"
    try:
        own = TrainConfig.from_dict(tables.get("train", {}), f"{where}: [train]")
    except (ValueError, TypeError) as error:
        raise DataError(str(error)) from None
    folder = options.fine_tune or own.fine_tune
    if folder and not options.resume:
        model, _, data = load_tables(Path(folder))
        known = {"model": model.to_dict(), "data": data.to_dict()}
        tables = tables | {table: known[table] | tables.get(table, {}) for table in known}
    try:
        _build(tables, where)
    except (ValueError, TypeError) as error:
        raise DataError(str(error)) from None
    given = {key: getattr(options, key) for _, key, _, _ in TRAIN_OPTIONS.values()}
    merged = {
        table: {
            **tables.get(table, {}),
            **{k: given[k] for t, k, _, _ in TRAIN_OPTIONS.values() if t == table and given[k] is not None},
        }
        for table in TABLES
    }
    try:
        return _build(merged, "train")
    except (ValueError, TypeError) as error:
        raise UsageError(f"train: {error}") from None


def _build(tables: Tables, where: str) -> tuple[ModelConfig, TrainConfig, DataConfig]:
    sizes = {"source_size": 4, "target_size": 4}  # set by train from the vocabularies
    model = ModelConfig.from_dict(sizes | tables.get("model", {}), f"{where}: [model]")
    settings = TrainConfig.from_dict(tables.get("train", {}), f"{where}: [train]")
    return model, settings, DataConfig.from_dict(tables.get("data", {}), f"{where}: [data]")


def _training_files(options: argparse.Namespace) -> list[tuple[str, str | None]]:
    if options.source or options.target:
        if not (options.source and options.target) or options.train:
            raise UsageError("train: --source and --target go together and replace the TSV files TRAIN and VALID")
        return list(zip(options.source, options.target, strict=True))
    if not options.valid:
        raise UsageError("train: expected the two TSV files TRAIN and VALID, or --source and --target")
    return [(options.train, None), (options.valid, None)]


# ---------------------------------------------------------------- translate


def _translate(options: argparse.Namespace) -> None:
    search = search_of(options)
    folders = [options.model, *options.ensemble]
    translator = load(folders, **speed_of(options))
    if translator.needs_links:
        name = next(name for name in folders if load_tables(Path(name))[0].attention == "oracle")
        raise DataError(
            f"translate: {name} is a model with attention 'oracle', which reads by gold links that text alone "
            "does not have; evaluate and align take a TSV file with links in the third column"
        )
    _check_align(options)
    constraints = Constraints(options, translator)
    unknown = replacement_of(options, translator)
    interactive = options.input in (None, "-") and sys.stdin.isatty()
    name = "stdin" if options.input in (None, "-") else options.input
    with ExitStack() as stack:
        align = stack.enter_context(open(options.align, "w", encoding="utf-8")) if options.align else None
        count = 0
        for lines in _chunks(_checked(_input(options.input), name, translator), 1 if interactive else CHUNK):
            texts = [line.text for line in lines]
            asked = constraints.of(texts)
            found = translator.translate(texts, options=search, replace_unknown=unknown, **asked)
            for line, translation in zip(lines, found, strict=True):
                _write(translation, line.text, count, options)
                count += 1
                if align:
                    print(metrics.pharaoh(translation.in_words().links()), file=align)
            sys.stdout.flush()


def _check_align(options: argparse.Namespace) -> None:
    """DataError where --align would write over a file that is read."""
    if not options.align or not os.path.isfile(options.align):
        return
    text = 0 if options.input in (None, "-") else options.input  # standard input by its number
    for name in (text, options.prefix_file, options.include_file, options.dictionary):
        if name is not None and os.path.exists(name) and os.path.samefile(options.align, name):
            raise DataError(f"translate: --align: {options.align} is read, expected another file to write")


def _input(path: str | None) -> Iterator[Line]:
    if path not in (None, "-"):
        if not os.path.exists(path) and " " in path:
            raise DataError(f"translate: {path}: no such file; INPUT names a file, a sentence comes by standard input")
        yield from scan_file(path)
    elif cast(BufferedReader, sys.stdin.buffer).peek(1):  # no input at all is no line, and no error
        yield from scan_stream(sys.stdin.buffer, "stdin")


def _checked(lines: Iterator[Line], name: str, translator: Translator) -> Iterator[Line | DataError]:
    """The lines, up to the first that cannot be translated, which comes as its error; a note of the first with a tab,
    which may be a pair."""
    asked = translator.two_columns
    for line in lines:
        if "\t" in line.text and not asked:
            asked = True
            note(
                f"{name}:{line.number}: the line has a tab and is read whole; a source column alone is: cut -f1 {name}"
            )
        try:
            if line.problem:
                raise DataError(line.problem)
            translator.tokenize(line.text)
        except DataError as error:
            separator = "" if str(error)[:1].isdigit() and line.problem else " "
            yield DataError(f"{name}:{line.number}:{separator}{error}")
            return
        yield line


def _chunks(lines: Iterator[Line | DataError], size: int) -> Iterator[list[Line]]:
    """Lists of at most `size` lines; an error is raised after the lines before it were handed on."""
    chunk: list[Line] = []
    for line in lines:
        if isinstance(line, DataError):
            if chunk:
                yield chunk
            raise line
        chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _write(translation: Translation, source: str, index: int, options: argparse.Namespace) -> None:
    if options.jsonl:
        record = translation.to_dict() | {"source": source, "source_tokens": translation.source_tokens}
        if options.nbest > 1:
            record["nbest"] = [other.to_dict() for other in translation.nbest]
        print(strict_json.dumps(record))
    elif options.nbest > 1:
        for other in translation.nbest:
            print(f"{index} ||| {other.text} ||| {other.score:.4f}")
    else:
        print(translation.text)


# ---------------------------------------------------------------- evaluate, align, info


def _report(options: argparse.Namespace) -> None:
    from dhyan.report import choice, page

    check_tokenize(options)
    search = search_of(options)
    wanted = [name.strip() for name in options.choose.split(",")]
    try:
        choice.check_choices(wanted)
    except ValueError as error:
        raise UsageError(f"report: --{error}") from None
    page.check_out(options.out, [name for name in (options.test, options.source, options.target) if name])
    test = _without_references(options)
    if test is None:
        translator, pairs = model_and_pairs(options, options.test)
        name = options.test or f"{options.source}, {options.target}"
        test = choice.Sentences(name, pairs, unit=choice.unit_of(translator))
    else:
        translator = load([options.model, *options.ensemble])
        note(f"{test.name}: no references, so nothing is measured")
    choice.check_numbers(test, options.sentences)
    models = [([options.model, *options.ensemble], translator)]
    models += [([options.against], load(options.against))] if options.against else []
    runs = []
    for folders, made in models:
        with located(options, options.test, made, test.pairs):
            runs.append(choice.run(folders, made, test, options=search, tokenize=options.tokenize))
    text, cards = page.report_html(
        runs, test, beam=search.beam, wanted=wanted, count=options.cards, numbers=options.sentences,
        p_values=choice.compared(runs, test, tokenize=options.tokenize),
    )  # fmt: skip
    page.write(options.out, text)
    if runs[0].result and runs[0].result["bleu"] is None:
        note(metrics.TEXT_EXTRA_MISSING)
    print(f"{options.out}: {len(test.pairs)} sentences, {cards} cards")


def _without_references(options: argparse.Namespace) -> Sentences | None:
    """The test where it is only sources: a file of source lines alone, or a TSV file without a target column."""
    from dhyan.report import choice

    if options.target or bool(options.test) == bool(options.source):
        return None
    check_bad_lines(options)
    two_columns = "," in load_tables(Path(options.model))[2].columns
    name, skipped = str(options.source or options.test), list[str]()
    pairs = choice.read_sources(name, two_columns, bool(options.source), options.bad_lines, skipped)
    note_skipped(name, skipped)
    return None if pairs is None else choice.Sentences(name, pairs, has_references=False)


def _align(options: argparse.Namespace) -> None:
    translator, pairs = model_and_pairs(options, options.pairs)
    for first in range(0, len(pairs), CHUNK):
        chunk = pairs[first : first + CHUNK]
        links = [pair.links for pair in chunk] if translator.needs_links else None
        with located(options, options.pairs, translator, chunk):
            aligned = translator.align([p.source for p in chunk], [p.target for p in chunk], links=links)
        for found in aligned:
            print(metrics.pharaoh(found.in_words().links()))


def _shortlist(options: argparse.Namespace) -> None:
    check_files(options, options.pairs)
    out = Path(options.model)
    load_tables(out)  # the lock would make a folder that is missing
    with FolderLock(out):
        loaded = load_folder(out)
        source, target = loaded.source_vocabulary, loaded.target_vocabulary
        pairs = pairs_for(options, options.pairs, loaded.data)
        lexicon = Lexicon.learn(
            [source.encode(p.source_input) for p in pairs], [target.encode(p.target) for p in pairs],
            len(source), len(target),
        )  # fmt: skip
        save_lexicon(out, lexicon)
    print(f"{out / SHORTLIST}: {len(pairs)} pairs, {int((lexicon.best[:, 0] >= 0).sum())} source tokens")


def _average(options: argparse.Namespace) -> None:
    average(options.models, options.out)
    print(f"{options.out}: the mean of {len(options.models)} models")


def _info(options: argparse.Namespace) -> None:
    import platform
    from importlib import metadata

    from .parser import version

    facts: dict[str, Any] = {"dhyan": version(), "python": platform.python_version(), "platform": platform.platform()}
    for package in (
        "numpy",
        "safetensors",
        "rich",
        "matplotlib",
        "sacrebleu",
        "rapidfuzz",
        "sentencepiece",
        "starlette",
        "uvicorn",
    ):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = None
    core = ops.show_config()
    facts |= {"isa": core["isa"], "isas": core["isas"], "bf16": ops.has_bf16()}
    facts |= {key: core[key] for key in ("threads", "openmp", "threading", "cuda", "cuda_devices")}
    if options.json:
        print(strict_json.dumps(facts))
        return
    missing = {"cuda": "not in this build"}
    for key, value in facts.items():
        shown = (
            ", ".join(value)
            if isinstance(value, list | tuple)
            else missing.get(key, "not installed")
            if value is None
            else value
        )
        print(f"{key:<14}{ {True: 'yes', False: 'no'}[value] if isinstance(value, bool) else shown }")


def serve(options: argparse.Namespace) -> None:
    """Run the command: it ends by a signal."""
    from dhyan.serve import server

    server.check_installed()
    from dhyan.serve.app import make_app
    from dhyan.serve.guard import machine_names
    from dhyan.serve.work import Served, Worker, names_of, read_examples

    speed = speed_of(options)
    with server.listen(options.host, options.port) as made:
        folders = [options.model, *([options.against] if options.against else [])]
        served = [Served(name, load(folder, **speed)) for name, folder in zip(names_of(folders), folders, strict=True)]
        _check(served, folders)
        examples = read_examples(options.examples, served[0].translator) if options.examples else []
        anywhere = not server.is_loopback(made)
        names = machine_names(options.host) if anywhere else ()
        if anywhere:
            note(f"warning: --host {options.host} lets other machines use this page, without password or encryption")
        worker = Worker(served)
        app = make_app(worker, examples=examples, anywhere=anywhere, names=names)
        print(f"{', '.join(folders)}: {server.address(made, options.host)}", flush=True)
        server.run(app, worker, made)


def _check(served: Sequence[Served], folders: Sequence[str]) -> None:
    for folder, one in zip(folders, served, strict=True):
        if one.translator.needs_links:
            raise DataError(f"serve: {folder} is a model with attention 'oracle', which reads by gold links")
    if len({one.translator.two_columns for one in served}) > 1:
        raise DataError("serve: one model reads two columns and the other one, expected two models of the same data")
