"""The bottleneck: one vector forgets long sentences, attention does not (Bahdanau et al. 2014, figure 2).

The task is pure memory: random digits are to be said as words, "7 4 1" as "seven four one". No word can be guessed from
its neighbours. The first model has only the encoder's last state to read them from, the second looks back at all.

Run: python examples/bottleneck.py [--quick] [--out by-length.svg]  (half a minute; --quick: seconds)
"""

import argparse
import random
import tempfile

import dhyan
from dhyan.metrics.scores import bleu, exact_match, token_error_rate
from dhyan.text.pairs import Pair

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MODELS = {"without attention": "none", "with attention": "additive"}


def sentence(rng, least, most):
    """A sequence of digits and how they are said."""
    digits = [rng.randrange(10) for _ in range(rng.randint(least, most))]
    return Pair(" ".join(map(str, digits)), " ".join(WORDS[digit] for digit in digits))


def learn(attention, train, valid, options, hidden):
    """A trained translator; the two models differ in `attention` alone."""
    config = dhyan.ModelConfig(
        source_size=4, target_size=4, embedding=16, hidden=hidden, cell="gru", attention=attention, dropout=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        dhyan.train(config, train, valid, folder, options=options)
        return dhyan.load(folder)


def measure(translator, test):
    """One object a bucket of lengths: words right (1 - word error rate), whole sentences right, BLEU."""
    rows = []
    for (least, most), pairs in test.items():
        found = [result.text for result in translator.translate([pair.source for pair in pairs], beam=1)]
        references = [pair.target for pair in pairs]
        score = bleu(found, references)  # None without the text extra
        row = {"from": least, "to": most, "pairs": len(pairs), "bleu": score and score.score}
        row["words"] = max(0.0, 1 - token_error_rate(found, references))
        row["exact"] = exact_match(found, references)
        rows.append(row)
    return rows


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few sentences, to see that all runs")
parser.add_argument("--out", help="draw BLEU by length: .svg, or .png with matplotlib (needs the text extra)")
args = parser.parse_args()

longest, count, hidden = (12, 1600, 32) if args.quick else (24, 6000, 64)
rng = random.Random(0)
train = [sentence(rng, 1, longest) for _ in range(count)]
valid = [sentence(rng, 1, longest) for _ in range(100)]
step = longest // 6
test = {(n - step + 1, n): [sentence(rng, n - step + 1, n) for _ in range(100)] for n in range(step, longest + 1, step)}
options = dhyan.TrainConfig(epochs=6 if args.quick else 12, batch=16 if args.quick else 32, lr=6e-3, schedule="cosine",
                            label_smoothing=0)  # fmt: skip

print(f"{count} training sentences of 1 to {longest} digits, none of the test seen before\n")
curves = {name: measure(learn(attention, train, valid, options, hidden), test) for name, attention in MODELS.items()}
print(f"{'words right, by length':24s}" + "".join(f"{name:>20s}" for name in MODELS))
for rows in zip(*curves.values(), strict=True):
    bars = "   ".join(f"{row['words']:6.1%} {'█' * round(10 * row['words']):10s}" for row in rows)
    print(f"{rows[0]['from']:3d} to {rows[0]['to']:2d} digits        {bars}")
print(
    f"{'sentences right':24s}"
    + "".join(f"{sum(r['exact'] for r in rows) / len(rows):20.1%}" for rows in curves.values())
)
if args.out:
    from dhyan.plot.curves import save_bleu_by_length

    save_bleu_by_length(args.out, curves, title="Saying digits: BLEU by number of digits")
    print(f"wrote {args.out}")
