"""The alignment functions side by side, on the same encoder states (Luong et al. 2015, section 3.1, and others).

A decoder writes "the cat sat on the mat" and has to find each word in six encoder states. Two things make it hard:
"the" stands there twice, and the state of "sat" is three times as long as the others. Functions without parameters are
used as they are; the others learn from random sentences, by a loss on the weights alone, to look at the right word.

Run: python examples/alignment_functions.py [--quick] [--out alignments.png]  (15 s; --quick: seconds)
"""

import argparse

import dhyan
import numpy as np
from dhyan.plot.heatmap import terminal_heatmap

H, PLACES, VOCABULARY = 16, 8, 10  # content width; places a query can name; different words
LOUD = 2  # the word whose state is long
WORDS = ["the", "cat", "sat", "on", "the", "mat"]
SENTENCE = np.array([0, 1, 2, 3, 0, 4])
# What each is called, how it is made, and what to look for.
FUNCTIONS = [
    ("dot", {"score": "dot"}, "the long state of 'sat' drowns the others"),
    ("scaled_dot", {"score": "scaled_dot"}, "the same, softer: over sqrt(H)"),
    ("cosine", {"score": "cosine"}, "only angles count, so 'sat' drowns nothing"),
    ("general", {"score": "general"}, "a learned matrix between query and state"),
    ("additive", {"score": "additive"}, "a small network"),
    ("concat", {"score": "concat"}, "the same with one matrix"),
    ("location", {"score": "location", "max_source": PLACES}, "sees no word, only the query's place"),
    ("location_sensitive", {"score": "location_sensitive"}, "knows where it was: the second 'the' is found"),
    ("coverage", {"score": "coverage"}, "knows how much of each is read: the tie stays"),
    ("additive, window 1", {"score": "additive", "window": dhyan.Window(1)}, "local-m: the neighbours of t"),
    ("additive, predictive", {"score": "additive", "window": dhyan.PredictiveWindow(3)}, "local-p: it predicts where"),
    ("scaled_dot, sparsemax", {"score": "scaled_dot", "normalize": "sparsemax"}, "the soft one with exact zeros"),
]


class World:
    """Turns words into states: a direction for each word; the decoder's directions may be turned against them."""

    def __init__(self, turned):
        rng = np.random.default_rng(0)
        # Each word's own direction, and one that all share, as the states of one encoder do.
        self.content = 1.8 * rng.standard_normal((VOCABULARY, H)) / H**0.5 + 0.8 * rng.standard_normal(H) / H**0.5
        self.turn = np.linalg.qr(rng.standard_normal((H, H)))[0] if turned else np.eye(H)

    def arrays(self, words):
        """query (B, T, H + 8): the word sought and the place in the output; memory (B, S, H + 8): the word alone."""
        B, S = words.shape
        place = np.broadcast_to(np.eye(PLACES)[:S], (B, S, PLACES))
        query = np.concatenate([self.content[words] @ self.turn, place], 2)
        memory = np.concatenate([self.content[words], np.zeros((B, S, PLACES))], 2)
        memory[words == LOUD] *= 3
        return query, memory


def learn(attention, world, steps):
    """Adam on -log(weight of the right word): row t should read position t."""
    p, rng = attention.parameters(), np.random.default_rng(1)
    moments = {name: [np.zeros_like(array), np.zeros_like(array)] for name, array in p.items()}
    for step in range(1, steps + 1):
        query, memory = world.arrays(rng.integers(0, VOCABULARY, (32, PLACES - rng.integers(0, 3))))
        read, cache = attention.forward(query, memory)
        right = np.eye(query.shape[1], dtype=bool)
        dweights = np.where(right, -1 / np.maximum(read.weights, 1e-2), 0) / read.weights.shape[0] / len(right)
        gradients = attention.backward(np.zeros_like(read.context), cache, dweights).parameters
        for name, g in gradients.items():
            m, s = moments[name]
            m += 0.1 * (g - m)
            s += 0.01 * (g * g - s)
            p[name] -= 0.03 * (m / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.99**step)) + 1e-8)


def weights_of(choices, turned, steps):
    """The weights (T, S) on the sentence after learning what there is to learn."""
    world, width = World(turned), H + PLACES
    attention = dhyan.Attention(**choices, query_size=width, key_size=width, units=32, dtype="float64")
    learn(attention, world, steps)
    return attention.forward(*world.arrays(SENTENCE[None]))[0].weights[0]


def side_by_side(blocks):
    """Heat-maps under their titles, three in a row."""
    for first in range(0, len(blocks), 3):
        row = [text.splitlines() for text in blocks[first : first + 3]]
        for lines in zip(*row, strict=True):
            print("  ".join(line.ljust(38) for line in lines).rstrip())
        print()


def draw(path, found):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    for axis, (name, weights) in zip(figure.subplots(3, 4).flat, found.items(), strict=True):
        axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(name, fontsize=11)
        axis.set_xticks(range(len(WORDS)), WORDS, rotation=45)
        axis.set_yticks(range(len(WORDS)), WORDS)
        axis.tick_params(length=0, labelsize=9)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few steps, to see that all runs")
parser.add_argument("--out", help="picture file, .png or .svg (needs matplotlib)")
args = parser.parse_args()
steps = 60 if args.quick else 400

found = {name: weights_of(choices, False, steps) for name, choices, _ in FUNCTIONS}
side_by_side([f"{name}\n{terminal_heatmap(w, WORDS, WORDS, 36, False)}" for name, w in found.items()])

# Encoder and decoder are two networks: nothing makes their directions agree. With the decoder's turned by a random
# rotation, what compares the vectors as they are finds nothing any more; what has a matrix between them learns it.
print(f"{'mean weight on the right word':30s} {'same space':>10s} {'turned':>7s}   what to look for")
for name, choices, note in FUNCTIONS:
    turned = weights_of(choices, True, steps)
    print(f"{name:30s} {np.trace(found[name]) / 6:10.2f} {np.trace(turned) / 6:7.2f}   {note}")
if args.out:
    draw(args.out, found)
