"""From the decoder that looks back to the sentence that looks at itself: the bridge to Vaswani et al. 2017.

The end of the story that examples/README.md lists. Every step uses the op that the encoder-decoder uses; only what is
handed to it changes. The last one trains a layer, forward and backward.

Run: python examples/self_attention.py     (an instant)
"""

import dhyan
import numpy as np
from dhyan import ops

words = ["the", "cat", "sat", "on", "the", "mat"]
rng = np.random.default_rng(0)
vectors = {word: rng.standard_normal(16) for word in sorted(set(words))}
x = np.stack([vectors[word] for word in words])[None]  # (B=1, S=6, H=16)


def show(title: str, weights: np.ndarray) -> None:
    """One row a query, one column a key."""
    print(f"\n{title}")
    for word, row in zip(words, weights, strict=True):
        print(f"{word:>5s}  " + " ".join(f"{weight:.2f}" for weight in row))


# 1. Encoder-decoder attention: the query is a decoder state, keys and values are the encoder's states.
decoder_state = x[:, 1:2] + 0.5 * rng.standard_normal((1, 1, 16))
read = dhyan.attend(decoder_state, x, score="dot")
focus = " ".join(f"{word}:{weight:.2f}" for word, weight in zip(words, read.weights[0, 0], strict=True))
print("a decoder state that resembles 'cat' reads:", focus)

# 2. Self-attention: the sentence asks itself. Query, keys and values are the same array. Dot products of long vectors
# are large and the softmax is nearly one-hot; over sqrt(H) it is softer.
show("dot: every word finds itself, and 'the' both of its places", dhyan.attend(x, x, score="dot").weights[0])
show("scaled_dot, q . k / sqrt(H)", dhyan.attend(x, x, score="scaled_dot").weights[0])

# 3. A word that may not see what follows: the same op with causal=True, a range [0, t + 1) on the softmax.
show("causal", dhyan.attend(x, x, score="scaled_dot", causal=True).weights[0])

# 4. Several heads: each slice of the vectors scores and reads on its own. One registered scoring, one option.
heads = dhyan.Attention("scaled_dot", 16, 16, heads=4, dtype="float64")
four, _ = heads.forward(x, x)
print("\nweights of 4 heads", four.weights.shape, "context", four.context.shape)

# 5. It has no order: shuffle the words and the contexts are shuffled with them. A Transformer adds positions to x.
order = np.array([3, 5, 0, 1, 4, 2])
shuffled = dhyan.attend(x[:, order], x[:, order], score="scaled_dot").context
same = np.abs(shuffled - dhyan.attend(x, x, score="scaled_dot").context[:, order]).max() < 1e-12
print("shuffled words, shuffled contexts, nothing else:", same)

# 6. Projections make it a layer that learns: q = x Wq, k = x Wk, v = x Wv. Trained here to say the word before, which
# no word can know from itself: the gradients of the op find the weights that look one place back.
V, S, H, B = 8, 12, 32, 64
position = np.eye(S, H)  # one unit vector a place
table = rng.standard_normal((V, H)) * 0.3
shapes = {"q": (H, H), "k": (H, H), "v": (H, H), "out": (H, V)}
p = {name: rng.standard_normal(shape) * H**-0.5 for name, shape in shapes.items()}
moments = {name: [np.zeros_like(a), np.zeros_like(a)] for name, a in p.items()}
rows = np.arange(S)
begin, end = np.zeros((B, S), np.int64), np.tile(rows + 1, (B, 1))


def forward(ids: np.ndarray) -> tuple:
    """Logits (B, S, V) and what the backward pass reads."""
    x = (table[ids] + position).reshape(-1, H)
    q, k, v = (ops.linear_forward(x, p[name]).reshape(B, S, H) for name in "qkv")
    context, weights, cache = ops.attention_forward(q, k, v, term="product", scale=H**-0.5, begin=begin, end=end)
    flat = context.reshape(-1, H)
    return ops.linear_forward(flat, p["out"]).reshape(B, S, V), weights, (x, flat, cache)


for step in range(1, 101):
    ids = rng.integers(0, V, (B, S))
    logits, weights, (inputs, flat, cache) = forward(ids)
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    right = (logits[:, 1:].argmax(-1) == ids[:, :-1]).mean()
    if step in (1, 10, 50, 100):
        print(f"step {step:3d}: {right:6.1%} of the words before are right")
    dlogits = probability
    dlogits[np.arange(B)[:, None], rows[1:], ids[:, :-1]] -= 1
    dlogits[:, 0] = 0  # nothing stands before the first
    dcontext, dout, _ = ops.linear_backward(dlogits.reshape(-1, V) / (B * S), flat, p["out"])
    dq, dk, dv, _ = ops.attention_backward(dcontext.reshape(B, S, H), cache)
    gradients = {"out": dout}
    for name, d in (("q", dq), ("k", dk), ("v", dv)):
        gradients[name] = ops.linear_backward(d.reshape(-1, H), inputs, p[name])[1]
    for name, g in gradients.items():  # Adam
        m, s = moments[name]
        m += 0.1 * (g - m)
        s += 0.01 * (g * g - s)
        p[name] -= 0.02 * (m / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.99**step)) + 1e-8)

print("\nwhere each place looks (mean weights; the place before should stand out):")
for t in range(1, 6):
    print(f"place {t}: " + " ".join(f"{weight:.2f}" for weight in weights[:, t, : t + 1].mean(0)))
assert right > 0.99, "the layer has not learned to look one place back"
