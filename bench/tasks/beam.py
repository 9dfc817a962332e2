"""What beam search of one sentence costs beside greedy decoding: 25 source and 25 output tokens, encoder included.

    python bench/task.py beam [--quick] [--beam 4]

The models are random and never end; each is frozen, as `dhyan.load` does. Medians; both in the same run, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import machine
import numpy as np
from dhyan import ModelConfig, Seq2Seq, show_config
from dhyan.search.beam import beam_search

TOKENS = 25


def milliseconds(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """The median time of each, called in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for own, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def measure(cell: str, V: int, H: int, beam: int, repeats: int, weights: str | None) -> tuple[float, float, float]:
    """Milliseconds a token of greedy decoding, of beam=1 and of the beam."""
    sizes = {"source_size": V, "target_size": V, "embedding": H, "hidden": H}
    model = Seq2Seq(ModelConfig(**sizes, cell=cell, dropout=0.0))  # type: ignore[arg-type]
    model.parameters()["output.bias"][2] = -1e4
    model.freeze(weights)
    source, lengths = np.random.default_rng(0).integers(4, V, (1, TOKENS)), np.array([TOKENS])
    calls: list[Callable[[], object]] = [lambda: model.greedy(source, lengths, TOKENS)]
    for width in (1, beam):
        calls.append(lambda width=width: beam_search(model, source, lengths, beam=width, max_length=TOKENS))  # type: ignore[misc]
    greedy, one, wide = (value / TOKENS for value in milliseconds(calls, repeats))
    return greedy, one, wide


def main(argv: list[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models, seconds")
    parser.add_argument("--beam", type=int, default=4, help="hypotheses (4)")
    options = parser.parse_args(argv)
    config = show_config()
    print(f"{machine.processor()}, {config['isa']}, {config['threads']} threads; ms a token, one sentence\n")
    print(f"| model | greedy | beam 1 | beam {options.beam} | beam / greedy |\n|---|--:|--:|--:|--:|")
    for cell in ("gru", "lstm"):
        for V, H in ((300, 16),) if options.quick else ((8000, 256), (8000, 512)):
            for weights in (None, "bfloat16", "int8"):
                found = measure(cell, V, H, options.beam, 3 if options.quick else 15, weights)
                name = f"{cell.upper()} V{V} E{H} H{H}{f', {weights}' if weights else ''}"
                print(
                    f"| {name} | {found[0]:.3f} | {found[1]:.3f} | {found[2]:.3f} | {found[2] / found[0]:.2f} |",
                    flush=True,
                )
    return 0
