"""Show, attend and tell: a picture read out word by word, with the glimpses drawn over it (Xu et al. 2015, figure 3).

One to four handwritten digits stand in a 2 x 2 grid, each somewhere in its cell. The encoder reads the picture as 25
feature vectors, glimpses of 8 x 8 pixels that overlap by half; the decoder says the digits in reading order and looks,
for every word, at some of them. Nobody tells it where the digits are. The digits are scikit-learn's.

Run: python examples/captions.py [--quick] [--out captions.png]  (half a minute; --quick: seconds, with mistakes)
"""

import argparse

import dhyan
import numpy as np
from sklearn.datasets import load_digits

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CELL, PATCH, STRIDE = 12, 8, 4  # pixels; a digit of 8 x 8 stands in a corner of its cell of 12 x 12
SIZE = 2 * CELL
CORNERS = [(y, x) for y in range(0, SIZE - PATCH + 1, STRIDE) for x in range(0, SIZE - PATCH + 1, STRIDE)]
PLACES = np.eye(len(CORNERS), dtype=np.float32)  # where a glimpse was taken is part of what it says
BEGIN, END, FIRST = 1, 2, 4  # ids; the words follow the four special symbols


def pictures(rng, images, labels, count):
    """(canvas (B, 24, 24), cells (B, 4) of the digits in reading order or -1, a Batch of glimpses and captions)."""
    canvas = np.zeros((count, SIZE, SIZE), np.float32)
    cells, target = np.full((count, 4), -1), np.zeros((count, 6), np.int64)
    digits = rng.integers(1, 5, count)
    for b, n in enumerate(digits):
        cells[b, :n] = np.sort(rng.choice(4, n, replace=False))
        chosen = rng.integers(0, len(images), n)
        for cell, image in zip(cells[b], images[chosen], strict=False):
            y, x = np.array(divmod(cell, 2)) * CELL + STRIDE * rng.integers(0, 2, 2)
            canvas[b, y : y + PATCH, x : x + PATCH] = image
        target[b, : n + 2] = [BEGIN, *(FIRST + labels[chosen]), END]
    seen = [canvas[:, y : y + PATCH, x : x + PATCH].reshape(count, -1) for y, x in CORNERS]
    source = np.concatenate([np.stack(seen, 1), np.broadcast_to(PLACES, (count, *PLACES.shape))], 2)
    return canvas, cells, dhyan.Batch(source, np.full(count, len(CORNERS)), target, digits + 2)


def seen_pixels(weights):
    """Weights (25,) of the glimpses as a map (24, 24) of what was looked at, of sum 1."""
    looked = np.zeros((SIZE, SIZE))
    for (y, x), weight in zip(CORNERS, weights, strict=True):
        looked[y : y + PATCH, x : x + PATCH] += weight / PATCH**2
    return looked


def train(model, images, labels, steps):
    """New pictures at every step, so there is nothing to learn by heart but the digits themselves."""
    rng, optimizer = np.random.default_rng(0), dhyan.Adam(model, lr=1e-2)
    for step in range(1, steps + 1):
        optimizer.lr = 1e-2 * (1 + 1e-3 - step / steps)
        _, _, batch = pictures(rng, images, labels, 16)
        loss, cache = model.forward(batch, step=step)
        optimizer.step(model.backward(cache))
        if step % (steps // 5) == 0:
            print(f"step {step:5d}  loss {loss:.3f}")


def evaluate(model, images, labels):
    """Captions right, digits right, and how much of the glimpses lay in the cell of the digit that was said."""
    _, cells, batch = pictures(np.random.default_rng(1), images, labels, 400)
    ids, _ = model.greedy(batch.source, batch.source_lengths, max_length=5)
    said = np.zeros((len(ids), 5), np.int64)
    said[:, : ids.shape[1]] = ids
    words = cells >= 0
    right = said[:, :4][words] == batch.target[:, 1:5][words]
    caption = (said == batch.target[:, 1:]).all(1)
    _, forced = model.force(batch)  # the weights with which the model would write the true caption
    shares = [
        seen_pixels(row).reshape(2, CELL, 2, CELL).sum((1, 3)).ravel()[cell]
        for row, cell in zip(forced[:, :4][words], cells[words], strict=True)
    ]
    return caption.mean(), right.mean(), float(np.mean(shares))


def say(model, canvas, cells, batch, b):
    """Print one picture and, beside it, where each word was read."""
    ids, weights = model.greedy(batch.source[b : b + 1], batch.source_lengths[b : b + 1], max_length=5)
    words = [WORDS[i - FIRST] for i in ids[0] if i >= FIRST]
    true = [WORDS[i - FIRST] for i in batch.target[b] if i >= FIRST]
    print(f"\nthe picture shows: {' '.join(true)}\nthe model reads:   {' '.join(words)}")
    blocks = [canvas[b]] + [seen_pixels(row) / seen_pixels(row).max() for row in weights[0][: len(words)]]
    print("  ".join(name.center(SIZE) for name in ["picture", *words]))
    for y in range(0, SIZE, 2):  # a character is twice as high as wide
        print("  ".join("".join(" ░▒▓█"[int(4 * v + 0.5)] for v in block[y : y + 2].mean(0)) for block in blocks))
    return words, weights[0]


def draw(path, model, images, labels, count=4):
    """A row a picture: the picture, then for each word the glimpses in blue over it."""
    from matplotlib.figure import Figure

    canvas, _, batch = pictures(np.random.default_rng(7), images, labels, count)
    ids, weights = model.greedy(batch.source, batch.source_lengths, max_length=5)
    figure = Figure(figsize=(9, 1.9 * count), layout="constrained")
    axes = figure.subplots(count, 5, squeeze=False)
    for b in range(count):
        shown = [WORDS[i - FIRST] for i in ids[b] if i >= FIRST]
        for t, axis in enumerate(axes[b]):
            axis.set(xticks=[], yticks=[], title=["picture", *shown, "", "", "", ""][t])
            axis.set_visible(t <= len(shown))
            axis.imshow(canvas[b], cmap="gray_r", vmin=0, vmax=1.2)
            if 0 < t <= len(shown):
                looked = seen_pixels(weights[b, t - 1])
                axis.imshow(np.ones_like(looked), cmap="Blues", vmin=0, vmax=1.5, alpha=0.6 * looked / looked.max())
    figure.savefig(path, dpi=110)
    print(f"\nwrote {path}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few steps, to see that all runs")
parser.add_argument("--out", help="picture file, .png or .svg (needs matplotlib)")
args = parser.parse_args()

digits = load_digits()
images, labels = digits.images.astype(np.float32) / 16, digits.target  # (1797, 8, 8), 0 to 1
hidden, steps = (32, 500) if args.quick else (64, 3000)
config = dhyan.ModelConfig(
    source="features", source_size=PATCH**2 + len(CORNERS), target_size=FIRST + len(WORDS), embedding=16, hidden=hidden,
    cell="gru", dropout=0.0,
)  # fmt: skip
model = dhyan.Seq2Seq(config)
train(model, images[:1400], labels[:1400], steps)
held_out = images[1400:], labels[1400:]  # by other writers
captions, right, inside = evaluate(model, *held_out)
print(f"\n400 pictures of digits it has never seen: {captions:.1%} of the captions right, {right:.1%} of the digits")
print(f"{inside:.1%} of what it looked at lay in the cell of the digit (25 % by chance)")
canvas, cells, batch = pictures(np.random.default_rng(7), *held_out, 4)
for b in range(2):
    say(model, canvas, cells, batch, b)
if args.out:
    draw(args.out, model, *held_out)
