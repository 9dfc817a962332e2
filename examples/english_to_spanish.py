"""English to Spanish on the built-in corpus: train, translate, and look at where each Spanish word comes from.

The two languages run side by side and still differ: the adjective follows its noun, "I am" is inside one verb, a
question opens with a mark that English puts at its end. The weights show each of these.

Run: python examples/english_to_spanish.py [--quick] [--out links.svg]  (half a minute; --quick: seconds, half right)
"""

import argparse
import tempfile

import dhyan
from dhyan import corpus
from dhyan.plot.heatmap import save_heatmap, terminal_heatmap

SENTENCES = {
    "the girl ate two sweet bananas": "the adjective follows: banana before sweet",
    "I am eating an apple": "three English words, two Spanish ones; the pronoun is in the verb",
    "will you play cricket tomorrow ?": "¿ is read from ?",
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few sentences, to see that all runs")
parser.add_argument("--out", help="draw the first sentence's weights: .svg, or .png with matplotlib")
args = parser.parse_args()

pairs = corpus.generate(1500 if args.quick else 8000, languages="en-es")
train, valid, _ = corpus.split(pairs, test=0, valid=50 if args.quick else 200, unseen=SENTENCES)
config = dhyan.ModelConfig(source_size=4, target_size=4, embedding=64, hidden=64 if args.quick else 128, cell="gru")
epochs, lr = (10, 8e-3) if args.quick else (12, 4e-3)
options = dhyan.TrainConfig(epochs=epochs, lr=lr, batch=32, schedule="cosine")


def report(row, model):
    print(f"epoch {row.epoch:2d}  loss {row.valid_loss:.3f}  exact match {100 * row.exact_match:.0f} %")


with tempfile.TemporaryDirectory() as folder:
    dhyan.train(config, train, valid, folder, options=options, on_report=report)
    translator = dhyan.load(folder)

for sentence, note in SENTENCES.items():
    result = translator.translate(sentence, beam=5)
    print(f"\n{sentence}  ->  {result.text}      ({note})")
    print(terminal_heatmap(result.weights, result.source_tokens, result.tokens))
    for t, token in enumerate(result.tokens):
        source, weight = result.focus(t)[0]
        print(f"{token:10s} {{'source_token': '{source}', 'weight': {weight:.2f}}}")
    if args.out and sentence == next(iter(SENTENCES)):
        save_heatmap(args.out, result.weights, result.source_tokens, result.tokens, title=result.text)
        print(f"wrote {args.out}")
