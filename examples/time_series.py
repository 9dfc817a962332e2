"""From a time series to symbols: speech-like sounds and their transcript (Chorowski et al. 2015, figures 1 and 2).

An utterance is a sequence of phones. A phone is a spectrum of 16 bands with two formants; it lasts as long as it likes,
glides into the next one, and is noisy. The listener gets 3 to 8 feature vectors a phone and must write each phone once.
The same phone comes back at other places: by content alone they look alike. A location-sensitive reader also sees where
it read last, a monotonic one can only go forward; the test is utterances twice as long as any in training.

Run: python examples/time_series.py [--quick] [--out listening.png]  (half a minute; --quick: seconds)
"""

import argparse

import dhyan
import numpy as np
from dhyan.metrics.scores import token_error_rate

BANDS = 16
PHONES = {"a": (5, 8), "e": (3, 11), "i": (1, 13), "o": (3, 6), "u": (1, 5), "n": (0, 9), "s": (12, 15)}
NAMES = list(PHONES)
BEGIN, END, FIRST = 1, 2, 4
READERS = {
    "additive": {"attention": "additive"},
    "location_sensitive": {"attention": "location_sensitive"},
    "monotonic": {"attention": "additive", "normalize": "monotonic"},
}


def utterance(rng, count):
    """(frames (S, 16), phones (count,), the first frame of each and S): what one speaker says."""
    phones = np.zeros(count, np.int64)
    for t in range(count):  # no phone twice in a row: nothing would tell two short ones from a long one
        phones[t] = rng.choice([p for p in range(len(NAMES)) if t == 0 or p != phones[t - 1]])
    formants = np.array([PHONES[NAMES[p]] for p in phones]) + rng.normal(0, 0.4)  # a higher or lower voice
    edges = np.concatenate([[0], np.cumsum(rng.integers(3, 9, count))])
    centres = (edges[:-1] + edges[1:] - 1) / 2
    frame = np.arange(edges[-1])
    tracks = np.stack([np.interp(frame, centres, formants[:, k]) for k in (0, 1)], 1)  # they glide
    steady = np.repeat(formants, np.diff(edges), 0)
    tracks = 0.3 * tracks + 0.7 * steady
    frames = np.exp(-0.5 * (np.arange(BANDS) - tracks[:, :, None]) ** 2).sum(1)
    return frames + rng.normal(0, 0.15, frames.shape), phones, edges


def hear(rng, count, least, most):
    """(a Batch, the edges of each utterance's phones)."""
    said = [utterance(rng, rng.integers(least, most + 1)) for _ in range(count)]
    lengths, target_lengths = np.array([len(u[0]) for u in said]), np.array([len(u[1]) + 2 for u in said])
    source = np.zeros((count, lengths.max(), BANDS), np.float32)
    target = np.zeros((count, target_lengths.max()), np.int64)
    for b, (frames, phones, _) in enumerate(said):
        source[b, : len(frames)] = frames
        target[b, : len(phones) + 2] = [BEGIN, *(FIRST + phones), END]
    return dhyan.Batch(source, lengths, target, target_lengths), [u[2] for u in said]


def listen(choices, steps, batch, most):
    """A model that has heard steps * batch utterances of 2 to `most` phones, none of them twice."""
    config = dhyan.ModelConfig(
        source_size=BANDS, target_size=FIRST + len(NAMES), source="features", embedding=16, hidden=32, cell="gru",
        order="luong", dropout=0.0, **choices,
    )  # fmt: skip
    model, rng = dhyan.Seq2Seq(config), np.random.default_rng(0)
    optimizer = dhyan.Adam(model, lr=8e-3)
    for step in range(1, steps + 1):
        optimizer.lr = 8e-3 * (1.001 - step / steps)
        _, cache = model.forward(hear(rng, batch, 2, most)[0], step=step)
        optimizer.step(model.backward(cache))
    return model


def transcribe(model, batch):
    """(phones of each utterance, weights (B, T, S))."""
    ids, weights = model.greedy(batch.source, batch.source_lengths, max_length=2 * batch.target.shape[1])
    return [[NAMES[i - FIRST] for i in row if i >= FIRST] for row in ids.tolist()], weights


def measure(model, batch, edges):
    """(phone error rate, share of the phones whose largest weight lies inside the sound it stands for)."""
    found, _ = transcribe(model, batch)
    references = [[NAMES[i - FIRST] for i in row if i >= FIRST] for row in batch.target.tolist()]
    _, weights = model.force(batch)
    inside = [e[t] <= w[t].argmax() < e[t + 1] for e, w in zip(edges, weights, strict=True) for t in range(len(e) - 1)]
    return token_error_rate(found, references), float(np.mean(inside))


def show(phones, frames, weights, edges):
    """The loudest band of every frame, and below it a line a phone: where it was heard."""
    print("\n" + " " * 8 + "".join(f"{int(band):X}" for band in frames.argmax(1)) + "   loudest band")
    said = "".join("|" if s in edges else " " for s in range(len(frames)))
    print(" " * 8 + said + "   where the phones begin")
    for phone, row in zip(phones, weights, strict=False):
        print(f"{phone:>6s}  " + "".join(" ░▒▓█"[int(4 * w / row.max() + 0.5)] for w in row))


def draw(path, phones, frames, weights, edges):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    sound, read = figure.subplots(2, 1, sharex=True)
    sound.imshow(frames.T, aspect="auto", origin="lower", cmap="Greys")
    sound.set_ylabel("band")
    read.imshow(weights[: len(phones)], aspect="auto", cmap="Blues", vmin=0)
    read.set_yticks(range(len(phones)), phones)
    read.set_xticks(range(0, len(frames), 5))
    read.set_xlabel("frame")
    for axis in (sound, read):
        for edge in edges[1:-1]:
            axis.axvline(edge - 0.5, color="tab:red", linewidth=0.8, alpha=0.6)
    figure.savefig(path, dpi=110)
    print(f"\nwrote {path}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few steps, to see that all runs")
parser.add_argument("--out", help="picture file, .png or .svg (needs matplotlib)")
args = parser.parse_args()
steps, batch, most = (220, 16, 4) if args.quick else (800, 32, 8)

same, longer = (hear(np.random.default_rng(1), 200, *sizes) for sizes in ((2, most), (2 * most, 2 * most)))
print(f"{'phone error rate':20s} {f'2 to {most}':>8s} {f'{2 * most} phones':>10s} {'weights on the right sound':>28s}")
for name, choices in READERS.items():
    model = listen(choices, steps, batch, most)
    (error, inside), (error_longer, _) = measure(model, *same), measure(model, *longer)
    print(f"{name:20s} {error:8.1%} {error_longer:10.1%} {inside:28.1%}")
    if name == "location_sensitive":
        shown = model

batch, edges = hear(np.random.default_rng(2), 1, most, most)
(phones,), weights = transcribe(shown, batch)
print("\nsaid:  " + " ".join(NAMES[i - FIRST] for i in batch.target[0] if i >= FIRST))
print("heard: " + " ".join(phones))
show(phones, batch.source[0], weights[0], edges[0])
if args.out:
    draw(args.out, phones, batch.source[0], weights[0], edges[0])
