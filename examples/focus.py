"""What the decoder focuses on, and how the focus moves when the query changes.

Weights are not a property of a word: they answer a question. Here four encoder states stay as they are and only the
decoder's question changes: what it asks for, how sure it is, and step by step from one word to the next.

Run: python examples/focus.py [--out focus.svg]  (an instant)
"""

import argparse

import dhyan
import numpy as np

words = ["attention", "helps", "nlp", "models"]
states = np.eye(4)  # S = 4 encoder states; word s stands alone in direction s, to be easy to read


def focus(query):
    """One line a source token, largest weight first."""
    weights = dhyan.attend(query, states).weights
    for s in np.argsort(-weights, kind="stable"):
        print({"source_token": words[s], "weight": round(float(weights[s]), 2)})
    return weights


# The scores are query . state, so this query gives exactly these weights: softmax(log p) = p.
query = np.log([0.1, 0.1, 0.7, 0.1])
print("The decoder is about to write एनएलपी and asks for nlp:")
focus(query)

print("\nThe same states, another question: now it asks for models.")
focus(query[[0, 1, 3, 2]])

print("\nThe same question, asked twice as loudly: the order stays, the focus sharpens.")
focus(2 * query)

print("\nHardly asked at all: it looks everywhere, and the context is nearly the mean of the states.")
focus(0.1 * query)

print("\nFrom helps to nlp in five steps:")
rows = []
for step in np.linspace(0, 1, 5):
    asked = 4 * ((1 - step) * states[1] + step * states[2])
    weights = dhyan.attend(asked, states).weights
    rows.append(weights)
    print(f"{step:4.0%}  " + "  ".join(f"{word} {weight:.2f}" for word, weight in zip(words, weights, strict=True)))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", help="draw the five steps as a heat-map: .svg, or .png with matplotlib")
if out := parser.parse_args().out:
    from dhyan.plot.heatmap import save_heatmap

    names = [f"{step:.0%}" for step in np.linspace(0, 1, 5)]
    save_heatmap(out, np.array(rows), words, names, title="The query moves from helps to nlp")
    print(f"wrote {out}")
