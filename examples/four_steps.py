"""Attention in four steps, one op each and then all in one call: score, softmax, weighted sum, context.

Three encoder states, one decoder state that asks (Bahdanau et al. 2014, equations 5 and 6; the score is Luong's dot).

Run: python examples/four_steps.py     (an instant)
"""

import dhyan
import numpy as np
from dhyan import ops

words = ["I", "am", "eating"]
states = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])  # S = 3 encoder states of width 2
query = np.array([0.7, 0.3])  # the decoder's state

# 1. Score: how well does each state answer the query? Here their dot product.
scores = ops.score_forward(query[None, None], states[None], term="product")[0, 0]
print("scores  ", scores)

# 2. Softmax: scores become weights that sum to 1.
weights = ops.softmax_forward(scores[None, None])[0, 0]
print("weights ", weights.round(4))

# 3. Weighted sum, 4. context: what the decoder reads.
context = ops.context_forward(weights[None, None], states[None])[0, 0]
print("context ", context.round(4))

# The same in one call.
read = dhyan.attend(query, states)
print(
    "attend  ",
    read.context.round(4),
    "the same:",
    np.allclose(read.context, context) and np.allclose(read.weights, weights),
)

# Where the focus goes when the query changes; examples/focus.py stays longer with that.
for query in ([0.7, 0.3], [0.1, 0.9], [5.0, -5.0]):
    read = dhyan.attend(np.array(query), states)
    focus = [{"source_token": words[s], "weight": round(float(read.weights[s]), 2)} for s in np.argsort(-read.weights)]
    print("query", query, "->", *focus)
