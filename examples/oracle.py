"""How good could attention be? The oracle reads by the gold links, so nothing is left to search: an upper bound.

Four models learn the same Hindi-English sentences and differ only in how the decoder reads: not at all, the mean of all
words, a learned alignment, and the true one. What the learned one lacks to the oracle is lost by looking at wrong
words; what the oracle lacks to 100 % is lost elsewhere. (Bahdanau et al. 2014 has the first and the third.)

Run: python examples/oracle.py [--quick] [--out oracle.svg]  (half a minute; --quick: seconds, all are worse)
"""

import argparse
import tempfile

import dhyan
from dhyan import corpus, plot
from dhyan.metrics.alignment import aer
from dhyan.metrics.scores import exact_match, token_error_rate

READERS = {"none": "without attention", "uniform": "the mean", "additive": "learned", "oracle": "gold links"}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few sentences, to see that all runs")
parser.add_argument("--out", help="draw what the learned model read beside the gold links: .svg, or .png")
args = parser.parse_args()

pairs = corpus.generate(1120 if args.quick else 6400)
train, valid, test = corpus.split(pairs, test=100 if args.quick else 300, valid=20 if args.quick else 100)
hidden, epochs, batch, lr = (40, 7, 16, 8e-3) if args.quick else (96, 6, 32, 4e-3)
options = dhyan.TrainConfig(epochs=epochs, batch=batch, lr=lr, schedule="cosine", label_smoothing=0)
sources, references, links = [p.source for p in test], [p.target for p in test], [p.links for p in test]

print(f"{len(train)} pairs, {len(test)} unseen ones to test on\n")
print(f"{'reads':20s} {'exact match':>11s} {'token errors':>12s} {'alignment errors':>16s}")
translators = {}
for attention, name in READERS.items():
    config = dhyan.ModelConfig(
        source_size=4, target_size=4, embedding=48, hidden=hidden, cell="gru", attention=attention, dropout=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        dhyan.train(config, train, valid, folder, options=options)
        translator = translators[attention] = dhyan.load(folder)
    # All are given the links; only the oracle reads them.
    found = [result.text for result in translator.translate(sources, beam=5, links=links)]
    forced = [result.links() for result in translator.align(sources, references, links=links)]
    exact, errors = exact_match(found, references), token_error_rate(found, references)
    print(f"{name:20s} {exact:11.1%} {errors:12.1%} {aer(forced, links):16.3f}")

# One sentence: what was learned, and what is true.
chosen = min(test, key=lambda pair: abs(len(pair.source.split()) - 7))
for name, attention in (("Learned", "additive"), ("Gold", "oracle")):
    (result,) = translators[attention].align([chosen.source], [chosen.target], links=[chosen.links])
    print(f"\n{name}:\n{plot.terminal_heatmap(result.weights, result.source_tokens, result.tokens)}")
    if args.out:
        stem, _, suffix = args.out.rpartition(".")
        path = f"{stem}-{name.lower()}.{suffix}"
        plot.save_heatmap(path, result.weights, result.source_tokens, result.tokens, title=name)
        print(f"wrote {path}")
