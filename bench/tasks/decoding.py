"""What faster decoding costs in quality: weights in fewer bytes, a shortlist, greedy and beam, on one trained model.

    dhyan demo --out demo
    python bench/task.py decoding demo/model demo/test.tsv
    python bench/task.py decoding MODEL TEST.tsv --train TRAIN.tsv --shortlist 10 50      learns the lexicon first

One sentence at a time, as someone who waits for it would: milliseconds a token, encoder included, the median over
sentences; exact match and token error rate of the same outputs, and what share of them is that of the first row.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dhyan
import machine
from dhyan import metrics
from dhyan.text.pairs import read_pairs
from dhyan.training.folder import load_tables


@dataclass(frozen=True)
class Row:
    """One way to decode, and what it gave."""

    name: str
    ms: float
    exact: float
    error: float
    same: float


def rows(folder: str, test: str, sizes: list[int], most: int) -> list[Row]:
    """Every way in turn, each on the model loaded anew."""
    data = load_tables(Path(folder))[2]
    pairs = read_pairs(test, columns=data.columns, bad_lines=data.bad_lines, **data.counted)[:most]
    ways: list[tuple[str, dict[str, Any]]] = [
        ("float32", {}), ("bfloat16", {"weights": "bfloat16"}), ("int8", {"weights": "int8"}),
        *((f"shortlist {n}", {"shortlist": n}) for n in sizes),
        *((f"int8, shortlist {n}", {"weights": "int8", "shortlist": n}) for n in sizes[:1]),
    ]  # fmt: skip
    found = []
    for beam in (1, 4):
        first: list[str] = []
        for name, options in ways:
            translator = dhyan.load(folder, **options)
            references = [translator.target_vocab.tokenize(p.target) for p in pairs]
            texts, times = [], []
            for p in pairs:
                start = time.perf_counter()
                result = translator.translate(p.source, beam=beam)
                times.append((time.perf_counter() - start) / (len(result.tokens) + 1) * 1e3)
                texts.append(result)
            outputs = [r.tokens for r in texts]
            first = first or [r.text for r in texts]
            found.append(
                Row(
                    f"{'greedy' if beam == 1 else f'beam {beam}'}, {name}",
                    statistics.median(times),
                    metrics.exact_match(outputs, references),
                    metrics.token_error_rate(outputs, references),
                    statistics.mean(r.text == text for r, text in zip(texts, first, strict=True)),
                )
            )
            print(f"{found[-1]}", file=sys.stderr, flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", help="a model folder")
    parser.add_argument("test", help="a TSV file")
    parser.add_argument("--train", help="the TSV file to learn the lexicon of shortlists from")
    parser.add_argument("--shortlist", type=int, nargs="+", default=[10, 50], metavar="N", help="sizes (10 50)")
    parser.add_argument("--most", type=int, default=300, help="sentences (300)")
    o = parser.parse_args(argv)
    if o.train:
        subprocess.run([sys.executable, "-m", "dhyan", "shortlist", o.model, o.train], check=True)
    neighbours = machine.Neighbours()
    found = rows(o.model, o.test, o.shortlist if o.train else [], o.most)
    config, share = dhyan.show_config(), neighbours.share()
    model = dhyan.load(o.model).model.config
    print(f"- {machine.processor()}, dhyan {config['version']}: {config['isa']}, {config['threads']} threads")
    print(f"- {model.cell} E{model.embedding} H{model.hidden} V{model.target_size}; other processes used "
          f"{'an unknown share' if share is None else f'{share:.0%}'} of the machine\n")  # fmt: skip
    print("| one sentence at a time | ms a token | exact match | token error rate | same output |")
    print("|---|--:|--:|--:|--:|")
    for row in found:
        print(f"| {row.name} | {row.ms:.3f} | {row.exact:.1%} | {row.error:.2%} | {row.same:.1%} |")
    return 0
