"""Hindi to English on the built-in corpus: train, translate, and look at where each English word comes from.

The verb ends a Hindi sentence and stands second in an English one: the heat-map shows the jump (Bahdanau et al. 2014,
figure 3). The pronoun and the auxiliary are read from two ends of the Hindi sentence.

Run: python examples/hindi_to_english.py [--quick] [--out heatmap.svg]  (half a minute; --quick: seconds, half right)
"""

import argparse
import tempfile

import dhyan
from dhyan import corpus
from dhyan.plot.heatmap import save_heatmap, terminal_heatmap

SENTENCES = ("मैं खाना खा रहा हूँ", "मैं सेब खा रहा हूँ")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few sentences, to see that all runs")
parser.add_argument("--out", help="draw the first sentence's weights: .svg, or .png with matplotlib")
args = parser.parse_args()

pairs = corpus.generate(1500 if args.quick else 8000)
train, valid, _ = corpus.split(pairs, test=0, valid=50 if args.quick else 200, unseen=SENTENCES)
config = dhyan.ModelConfig(source_size=4, target_size=4, embedding=64, hidden=64 if args.quick else 128, cell="gru")
epochs, lr = (10, 8e-3) if args.quick else (12, 4e-3)
options = dhyan.TrainConfig(epochs=epochs, lr=lr, batch=32, schedule="cosine")


def report(row, model):
    print(f"epoch {row.epoch:2d}  loss {row.valid_loss:.3f}  exact match {100 * row.exact_match:.0f} %")


with tempfile.TemporaryDirectory() as folder:
    dhyan.train(config, train, valid, folder, options=options, on_report=report)
    translator = dhyan.load(folder)

for sentence in SENTENCES:
    result = translator.translate(sentence, beam=5)
    print(f"\n{sentence}  ->  {result.text}")
    print(terminal_heatmap(result.weights, result.source_tokens, result.tokens))
    for t, token in enumerate(result.tokens):
        source, weight = result.focus(t)[0]
        print(f"{token:10s} {{'source_token': '{source}', 'weight': {weight:.2f}}}")
    if args.out and sentence == SENTENCES[0]:
        save_heatmap(args.out, result.weights, result.source_tokens, result.tokens, title=result.text)
        print(f"wrote {args.out}")
