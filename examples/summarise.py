"""Summaries that copy: headlines of short reports whose names no vocabulary has (See et al. 2017, figure 3).

Every report is about people, places and numbers that are made up for it. A model that can only generate has no word
for them and writes <unk>; the unknown symbol can be replaced by the word it looks at (Luong 2015); a pointer-generator
learns when to copy, and its p_gen shows it. All three read the same reports, and are asked about names never seen.

Run: python examples/summarise.py [--quick]     (a minute; --quick: seconds, with mistakes)
"""

import argparse
import random
import tempfile

import dhyan
from dhyan.text.pairs import Pair

SYLLABLES = [c + v for c in ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z") for v in "aeiou"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
SPORTS = ["chess", "tennis", "fencing", "rowing", "judo"]
GOODS = ["cloth", "steel", "glass", "paper", "cars"]
STORIES = [  # (report, headline); words in braces are drawn, those in capitals made up
    (
        "{DAY} . {A} of {PLACE} won the {SPORT} final against {B} on {DAY} . the crowd cheered for {N} minutes .",
        "{A} beats {B} in {SPORT} final",
    ),
    (
        "{PLACE} . the {GOOD} maker {A} will close its works near {PLACE} , it said on {DAY} . {N} lose their job .",
        "{A} closes works near {PLACE}",
    ),
    (
        "{DAY} . a storm hit the town of {PLACE} last night . mayor {A} said that {N} houses were without power .",
        "storm leaves {N} houses in {PLACE} without power",
    ),
    (
        "{PLACE} . {A} sold the {GOOD} company {B} to a rival for {N} million , two papers wrote on {DAY} .",
        "{A} sells {B} for {N} million",
    ),
]


def name(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 3, 3))))


def reports(rng, count):
    """Pairs of report and headline, and of each headline the words that were made up."""
    pairs, made_up = [], []
    for _ in range(count):
        words = {key: name(rng) for key in ("A", "B", "PLACE")} | {"N": str(rng.randrange(100, 10000))}
        drawn = words | {"DAY": rng.choice(DAYS), "SPORT": rng.choice(SPORTS), "GOOD": rng.choice(GOODS)}
        report, headline = rng.choice(STORIES)
        pairs.append(Pair(report.format(**drawn), headline.format(**drawn)))
        made_up.append([word for word in pairs[-1].target.split() if word in words.values()])
    return pairs, made_up


def train(pairs, valid, *, copy, epochs):
    """A model of these reports; what is rarer than min_count is unknown to it, as nearly every made-up word is."""
    config = dhyan.ModelConfig(
        source_size=4, target_size=4, embedding=48, hidden=64, cell="gru", dropout=0.1, copy=copy
    )
    options = dhyan.TrainConfig(batch=32, epochs=epochs, patience=epochs, lr=5e-3, label_smoothing=0.0, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        dhyan.train(config, pairs, valid, folder, options=options, data=dhyan.DataConfig(min_count=10))
        return dhyan.load(folder)


def measure(title, found, pairs, made_up):
    """One line: how many made-up words came through, and how many headlines are right to the last word."""
    hits = [word in result.tokens for result, words in zip(found, made_up, strict=True) for word in words]
    exact = [result.text == pair.target for result, pair in zip(found, pairs, strict=True)]
    print(f"{title:34} {sum(hits) / len(hits):7.1%} {sum(exact) / len(exact):12.1%}   {found[0].text}")


def picture(result):
    """What each word of the headline was read from, and how: p_gen, and the share of it that was copied."""
    print(f"{'':10} p_gen  copied   looked at")
    for t, token in enumerate(result.tokens):
        read = ", ".join(f"{source} {weight:.2f}" for source, weight in result.focus(t)[:2])
        bar = "█" * round(8 * result.copied[t])
        print(f"{token:10}  {result.p_gen[t]:.2f}   {result.copied[t]:.2f}  {bar:8} {read}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer reports and epochs: seconds")
    quick = parser.parse_args().quick
    rng = random.Random(0)
    count, epochs = (600, 8) if quick else (6000, 12)
    pairs, _ = reports(rng, count)
    valid, _ = reports(rng, 50 if quick else 200)
    test, made_up = reports(rng, 100 if quick else 500)
    sources = [pair.source for pair in test]
    print("report     ", test[0].source)
    print("headline   ", test[0].target, "\n")
    plain = train(pairs, valid, copy=False, epochs=epochs)
    copying = train(pairs, valid, copy=True, epochs=epochs)
    print(f"{len(test)} reports of unseen names{'':7} names right   all right   the first")
    measure("generates", plain.translate(sources), test, made_up)
    measure("generates, then replaces <unk>", plain.translate(sources, replace_unknown=True), test, made_up)
    found = copying.translate(sources)
    measure("generates and copies", found, test, made_up)
    print()
    picture(found[0])


if __name__ == "__main__":
    main()
