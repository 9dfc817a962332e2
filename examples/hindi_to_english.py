"""Hindi to English on the built-in corpus: train, translate, and look at where each English word comes from.

The verb ends a Hindi sentence and stands second in an English one: the heat-map shows the jump.
Run: python examples/hindi_to_english.py [--quick]      (a minute; --quick: seconds, and it translates badly)
"""

import argparse
import tempfile

import dhyan
from dhyan import corpus
from dhyan.plot import terminal_heatmap

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true")
quick = parser.parse_args().quick

train, valid, _ = corpus.split(corpus.generate(400 if quick else 8000), test=0, valid=50 if quick else 200)
config = dhyan.ModelConfig(source_size=4, target_size=4, embedding=64, hidden=32 if quick else 128, cell="gru")
options = dhyan.TrainConfig(epochs=2 if quick else 12, lr=4e-3, batch=32, schedule="cosine")


def report(row, model):
    print(f"epoch {row.epoch:2d}  loss {row.valid_loss:.3f}  exact match {100 * row.exact_match:.0f} %")


with tempfile.TemporaryDirectory() as folder:
    dhyan.train(config, train, valid, folder, options=options, on_report=report)
    translator = dhyan.load(folder)
    for sentence in ("मैं खाना खा रहा हूँ", "मैं सेब खा रहा हूँ"):
        result = translator.translate(sentence, beam=5)
        print(f"\n{sentence}  ->  {result.text}")
        print(terminal_heatmap(result.weights, result.source_tokens, result.tokens))
        for t, token in enumerate(result.tokens):
            source, weight = result.focus(t)[0]
            print(f"{token:10s} {{'source_token': '{source}', 'weight': {weight:.2f}}}")
