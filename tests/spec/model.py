"""The recurrent encoder-decoder as a readable NumPy specification: float64 for values, complex128 for exact slopes.

One file, read top to bottom, because it is the definition that every other test leans on; how a step reads the memory
is in attention.py.

Shapes are written (B, S, I) as in the README, but every array may carry one more axis in front: `...` in the formulas.
It holds many perturbed copies of the parameters, so one call of the model gives the whole complex-step gradient:

    f(x + i h) = f(x) + i h f'(x) + O(h^2)    with h = 1e-30 the slope imag(f) / h is exact to rounding.

That asks for analytic formulas: no abs, no conjugate, and decisions (maximum, zero, mask) look at real parts only.
All weights are stored (in, out): y = x W + b. Ids: 0 pad, 1 begin, 2 end, 3 unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from spec.attention import (
    Past,
    Sentences,
    Setting,
    contexts,
    nothing_past,
    restricted,
    sigmoid,
    weights_of,
)
from spec.attention import shapes as attention_shapes

Array = np.ndarray
Parameters = dict[str, Array]

BEGIN, END, UNKNOWN = 1, 2, 3
STEP = 1e-30


# ------------------------------------------------------------------------------------------------ small pieces


def part(parameters: Parameters, prefix: str) -> Parameters:
    """The parameters under `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in parameters.items() if name.startswith(prefix + ".")}


def embedding(table: Array, ids: Array) -> Array:
    """table (V, E), ids of any shape -> ids.shape + (E,)."""
    return table[..., ids, :]


def embedding_gradient(dout: Array, ids: Array, size: int) -> Array:
    """dtable[v] is the sum of the rows of dout whose id is v."""
    dtable = np.zeros((size, dout.shape[-1]), dout.dtype)
    np.add.at(dtable, ids.reshape(-1), dout.reshape(-1, dout.shape[-1]))
    return dtable


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (B, I) -> (B, O): x W + b."""
    y = np.einsum("...bi,...io->...bo", x, weight)
    return y if bias is None else y + bias[..., None, :]


def log_softmax(logits: Array) -> Array:
    z = logits - logits.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


# ------------------------------------------------------------------------------------------------ recurrent layers


def summed(x: Array, p: Parameters, which: str) -> Array:
    """x W + b; with a gain LN(x W) gain + b, normalised over all gates' numbers together (Ba 2016), 1e-5 the least."""
    y = linear(x, p[f"weight_{which}"])
    if f"gain_{which}" in p:
        y = y - y.mean(-1, keepdims=True)
        y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) * p[f"gain_{which}"][..., None, :]
    return y + p[f"bias_{which}"][..., None, :]


# What h W_hh reads is h times `mask` (B, H), variational dropout of the state (Gal and Ghahramani 2016); 1 is none.


def rnn_cell(x: Array, h: Array, c: Array | None, p: Parameters, mask: Array | float = 1) -> tuple[Array, Array | None]:
    """h' = tanh(x W_ih + b_ih + h W_hh + b_hh)  (Elman 1990)."""
    return np.tanh(summed(x, p, "ih") + summed(h * mask, p, "hh")), None


def lstm_cell(
    x: Array, h: Array, c: Array | None, p: Parameters, mask: Array | float = 1
) -> tuple[Array, Array | None]:
    """Gates i f g o; c' = f c + i g, h' = o tanh(c')  (Hochreiter and Schmidhuber 1997, Gers 2000)."""
    gates = summed(x, p, "ih") + summed(h * mask, p, "hh")
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_cell(x: Array, h: Array, c: Array | None, p: Parameters, mask: Array | float = 1) -> tuple[Array, Array | None]:
    """Gates r z n, the reset gate after the product: n = tanh(x_n + r h_n), h' = (1 - z) n + z h  (Cho 2014)."""
    xr, xz, xn = np.split(summed(x, p, "ih"), 3, axis=-1)
    hr, hz, hn = np.split(summed(h * mask, p, "hh"), 3, axis=-1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return (1 - z) * n + z * h, None


CELLS: dict[str, Callable[..., tuple[Array, Array | None]]] = {"rnn": rnn_cell, "lstm": lstm_cell, "gru": gru_cell}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def recurrent(
    x: Array,
    lengths: Array,
    p: Parameters,
    *,
    cell: str,
    reverse: bool = False,
    h0: Array | None = None,
    c0: Array | None = None,
    state_mask: Array | float = 1,
) -> tuple[Array, Array, Array | None]:
    """x (B, S, I) -> output (B, S, H), final h (B, H), final c (B, H) or None.

    A sentence takes its own `lengths` steps, 0 .. length-1, or backwards when `reverse`. Positions past its end give 0
    and change no state, so the final state is the one after its last step (length 0: the initial state).
    """
    size, steps = len(lengths), x.shape[-2]
    zeros = np.zeros((size, p["weight_hh"].shape[-2]))
    h = zeros if h0 is None else h0
    c = (zeros if c0 is None else c0) if cell == "lstm" else None
    outputs: dict[int, Array] = {}
    for s in reversed(range(steps)) if reverse else range(steps):
        alive = (s < lengths)[:, None]
        new_h, new_c = CELLS[cell](np.where(alive, x[..., s, :], 0), h, c, p, state_mask)
        outputs[s] = np.where(alive, new_h, 0)
        h = np.where(alive, new_h, h)
        if new_c is not None:
            c = np.where(alive, new_c, c)
    if not steps:
        return np.zeros((size, 0, zeros.shape[-1])), h, c
    return np.stack([outputs[s] for s in range(steps)], axis=-2), h, c


Masks = dict[str, Array]  # inverted dropout masks by site; a site that is not there is not dropped


def drop(x: Array, masks: Masks | None, site: str) -> Array:
    return x * masks[site] if masks and site in masks else x


def encoder(x: Array, lengths: Array, p: Parameters, config: Any, masks: Masks | None = None) -> tuple[Array, Array]:
    """Embedded source (B, S, I) -> memory (B, S, D) and the final h (B, H) of the top layer.

    Both directions are joined [forward; backward]; the final state is the backward one where there is one.
    Dropout follows every layer; the recurrence and the final state do not see it. Residual: what a layer reads is added
    to what it hands on, from the second layer on.
    """
    for layer in range(config.layers):
        output, final = np.zeros((*x.shape[:-1], 0)), None
        for direction in ("forward", "backward")[: 1 + config.bidirectional]:
            name = f"encoder.{layer}.{direction}"
            mask = (masks or {}).get(f"encoder {layer} {direction}, state", 1)
            one, final, _ = recurrent(
                x, lengths, part(p, name), cell=config.cell, reverse=direction == "backward", state_mask=mask
            )
            output = concatenate(output, one)
        handed_on = drop(output, masks, f"encoder {layer}")
        x = x + handed_on if config.residual and layer else handed_on
    assert final is not None
    return x, final


# ------------------------------------------------------------------------------------------------ the read


def setting_of(config: Any) -> Setting:
    """What the model's configuration says of its attention."""
    return Setting(
        config.attention,
        heads=config.heads,
        normalize=config.normalize,
        temperature=config.temperature,
        radius=None if config.window is None else config.window.radius,
        predictive=type(config.window).__name__ == "PredictiveWindow",
        normalized=config.normalized,
    )


def read(
    config: Any,
    q: Array,
    memory: Array,
    lengths: Array,
    p: Parameters,
    past: Past,
    *,
    t: int,
    alignment: Array | None,
    noise: Array,
    hard: bool,
) -> tuple[Array, Array, Past]:
    """One target step, spec/attention.py with T = 1: q (B, H), memory (B, S, D) -> context (B, D), weights (B, S) (the
    mean of the heads), past. alignment (B, S) for oracle; noise (B, n, S) is added to monotonic scores."""
    setting, query = setting_of(config), q[..., None, :]
    allowed, bell = restricted(setting, p, query, memory.shape[-2], Sentences(lengths=lengths, position=t))
    weights = weights_of(
        setting, p, query, memory, allowed, bell, past,
        alignment=None if alignment is None else alignment[..., None, :], noise=noise[..., None, :], hard=hard,
    )  # fmt: skip
    row = weights[..., 0, :]
    return contexts(weights, memory)[..., 0, :], row.mean(-2), Past(row, past.total + row, row)


# ------------------------------------------------------------------------------------------------ the decoder


class State(NamedTuple):
    """Between two steps."""

    h: list[Array]  # of every layer
    c: list[Array | None]
    fed: Array | None  # the readout before
    past: Past


def initial_state(final: Array, p: Parameters, config: Any, positions: int) -> State:
    """tanh(final W + b) cut into h of every layer, then c of every layer; no readout has been fed yet."""
    columns = np.tanh(linear(final, p["initial.weight"], p["initial.bias"]))
    pieces = np.split(columns, columns.shape[-1] // config.hidden, axis=-1)
    h, c = pieces[: config.layers], pieces[config.layers :]
    past = nothing_past(final.shape[-2], config.heads, positions, float)
    return State(h, list(c) if config.cell == "lstm" else [None] * config.layers, None, past)


def decoder_step(
    y: Array,
    state: State,
    memory: Array,
    lengths: Array,
    t: int,
    p: Parameters,
    config: Any,
    alignment: Array | None = None,
    masks: Masks | None = None,
    hard: bool = False,
) -> tuple[Array, Array, State]:
    """Embedded previous token y (B, E) -> readout r (B, E), weights (B, S), next state.

    Bahdanau 2014: read with the previous state, then the cell on [y; c].
    Luong 2015: the cell on [y; r_{t-1}] (or y), then read.
    Dropout stands between layers; the state and the readout handed to the next step do not see it. Residual: what a
    layer reads is added to what it hands on, from the second layer on; the query is the state alone.
    """
    h, c, fed, past = state
    noise = (masks or {}).get(f"alignment, step {t}", np.zeros(1))

    def attend(query: Array) -> tuple[Array, Array, Past]:
        own = part(p, "attention")
        return read(config, query, memory, lengths, own, past, t=t, alignment=alignment, noise=noise, hard=hard)

    if config.order == "bahdanau":
        context, weights, past_and_now = attend(h[-1])
        x = concatenate(y, context)
    elif config.input_feeding:
        x = concatenate(y, np.zeros(y.shape) if fed is None else fed)
    else:
        x = y
    new_h, new_c = [], []
    for layer in range(config.layers):
        mask = (masks or {}).get(f"decoder layer {layer}, state", 1)
        top, cell_state = CELLS[config.cell](x, h[layer], c[layer], part(p, f"decoder.{layer}"), mask)
        new_h.append(top)
        new_c.append(cell_state)
        passed = x if config.residual and layer else 0
        x = passed + drop(top, masks, f"decoder layer {layer}, step {t}")
        out = passed + top
    if config.order == "bahdanau":
        seen = concatenate(y, out, context)
    else:
        context, weights, past_and_now = attend(top)
        seen = concatenate(out, context)
    r = np.tanh(linear(seen, p["readout.weight"], p["readout.bias"]))
    return r, weights, State(new_h, new_c, r, past_and_now)


def concatenate(*pieces: Array) -> Array:
    """Joined along the last axis, the others broadcast."""
    shape = np.broadcast_shapes(*(piece.shape[:-1] for piece in pieces))
    return np.concatenate([np.broadcast_to(piece, (*shape, piece.shape[-1])) for piece in pieces], axis=-1)


def copy_gate(r: Array, p: Parameters) -> Array:
    """p_gen (B,) of readouts r (B, E)."""
    return sigmoid(linear(r, p["copy.weight"], p["copy.bias"])[..., 0])


LEAST = 2.0**-100  # of the weights on a word that can only be copied; a word that can be generated has less not at all


def copy_mixture(log_p: Array, weights: Array, p_gen: Array, copies: Array, lengths: Array) -> Array:
    """log (p_gen p + (1 - p_gen) sum of the weights on the word), (B, V + S)  (See 2017, eq. 9).

    log_p (B, V), weights (B, S), p_gen (B,). copies (B, S): the source tokens as target ids, own words from V on; what
    is neither in the vocabulary nor in the source has probability 0.
    """
    V, S = log_p.shape[-1], copies.shape[-1]
    at = (copies[..., None] == np.arange(V + S)) & (np.arange(S) < lengths[:, None])[..., None]
    mass = np.einsum("...bs,bsw->...bw", weights, at.astype(float))
    is_own = at.any(-2) & (np.arange(V + S) >= V)
    mass = np.where(mass.real >= LEAST, mass, np.where(is_own, LEAST, 0))
    generated = concatenate(np.exp(log_p), np.zeros((copies.shape[0], S)))
    p = p_gen[..., None] * generated + (1 - p_gen[..., None]) * mass
    return np.where(p.real > 0, np.log(np.where(p.real > 0, p, 1)), -np.inf)


def encode(
    p: Parameters, config: Any, source: Array, lengths: Array, masks: Masks | None = None
) -> tuple[Array, State]:
    """Token ids (B, S) or features (B, S, F) -> memory and the decoder's initial state."""
    x = embedding(p["source_embedding"], source) if config.source == "tokens" else source
    memory, final = encoder(drop(x, masks, "source embedding"), lengths, p, config, masks)
    return memory, initial_state(final, p, config, memory.shape[-2])


def untied(p: Parameters, config: Any) -> Parameters:
    """Each matrix of words on its own: rows of a shared table E are read times sqrt(width), the output layer is E^T."""
    if config.tie == "none":
        return p
    table = p["target_embedding"]
    rows = table * config.embedding**0.5
    names = ("target_embedding", "source_embedding") if config.tie == "all" else ("target_embedding",)
    return {**p, **dict.fromkeys(names, rows), "output.weight": table.swapaxes(-1, -2)}


def force(
    p: Parameters,
    config: Any,
    source: Array,
    source_lengths: Array,
    target: Array,
    alignment: Array | None = None,
    masks: Masks | None = None,
    hard: bool = False,
    copies: Array | None = None,
) -> tuple[Array, Array]:
    """Teacher forcing: target (B, T+1) -> log probabilities of every token (B, T, V), weights (B, T, S).

    alignment (B, T, S): what the scoring "oracle" reads by. hard: the monotonic alignment of decoding. copies (B, S):
    for a model that copies, whose log probabilities are (B, T, V + S).
    """
    log_p, weights, mixed = force_parts(
        p, config, source, source_lengths, target, alignment, masks, hard=hard, copies=copies
    )
    return log_p if mixed is None else mixed, weights


def force_parts(
    p: Parameters,
    config: Any,
    source: Array,
    source_lengths: Array,
    target: Array,
    alignment: Array | None,
    masks: Masks | None,
    *,
    hard: bool = False,
    copies: Array | None = None,
) -> tuple[Array, Array, Array | None]:
    """force, the vocabulary's log probabilities and those of the mixture apart."""
    p = untied(p, config)
    memory, state = encode(p, config, source, source_lengths, masks)
    log_probabilities, weights, mixed = [], [], []
    known = np.where(target < p["target_embedding"].shape[-2], target, UNKNOWN)
    for t in range(target.shape[1] - 1):
        y = drop(embedding(p["target_embedding"], known[:, t]), masks, f"target embedding, step {t}")
        given = None if alignment is None else alignment[..., t, :]
        r, a, state = decoder_step(y, state, memory, source_lengths, t, p, config, given, masks, hard)
        r = drop(r, masks, f"readout, step {t}")
        log_probabilities.append(log_softmax(linear(r, p["output.weight"], p["output.bias"])))
        weights.append(a)
        if copies is not None:
            mixed.append(copy_mixture(log_probabilities[-1], a, copy_gate(r, p), copies, source_lengths))
    return np.stack(log_probabilities, -2), np.stack(weights, -2), np.stack(mixed, -2) if mixed else None


# ------------------------------------------------------------------------------------------------ loss, search, Adam


def token_losses(log_probabilities: Array, targets: Array, smoothing: float = 0.0, mixed: Array | None = None) -> Array:
    """-((1 - eps) log p[y] + eps/V sum_v log p[v])  (Szegedy 2016); a negative target gives 0.

    mixed: the first p of a model that copies; the second stays that of the vocabulary.
    """
    even = smoothing * log_probabilities.mean(-1) if smoothing else 0  # a word that only others have is log 0
    first = log_probabilities if mixed is None else mixed
    ids = np.broadcast_to(np.maximum(targets, 0), first.shape[:-1])
    chosen = np.take_along_axis(first, ids[..., None], axis=-1)[..., 0]
    return np.where(targets >= 0, -((1 - smoothing) * chosen + even), 0)


def cross_entropy(r: Array, weight: Array, bias: Array, targets: Array, *, smoothing: float = 0.0) -> Array:
    """r (N, E), output weight (E, V): the sum of the token losses."""
    return token_losses(log_softmax(linear(r, weight, bias)), targets, smoothing).sum(-1)


def loss(
    p: Parameters,
    config: Any,
    batch: Any,
    *,
    smoothing: float = 0.0,
    guided: float = 0.0,
    coverage: float = 0.0,
    masks: Masks | None = None,
) -> Array:
    """The whole model: mean negative log-likelihood per target token, in nats, and losses on the weights.

    batch as dhyan.Batch; its `read` (B, T+1), where it has one, is read in the place of target.
    guided, coverage: what guided_loss and coverage_loss are multiplied with.
    """
    alignment = getattr(batch, "alignment", None)
    copies = batch.copies if getattr(config, "copy", False) else None
    read = getattr(batch, "read", batch.target)
    log_p, weights, mixed = force_parts(
        p, config, batch.source, batch.source_lengths, read, alignment, masks, copies=copies
    )
    counted = np.arange(batch.target.shape[1] - 1) < batch.target_lengths[:, None] - 1
    targets = np.where(counted, batch.target[:, 1:], -1)
    total = token_losses(log_p, targets, smoothing, mixed).sum((-2, -1)) / counted.sum()
    if guided:
        assert alignment is not None
        total = total + guided * guided_loss(weights, alignment)
    if coverage:
        total = total + coverage * coverage_loss(weights, counted)
    return total


def guided_loss(weights: Array, alignment: Array) -> Array:
    """-1/M sum alignment log weights over the M rows with links  (Chen 2016); the log of 0 is that of the least."""
    least = np.finfo(np.float64).tiny
    known = alignment * np.log(np.where(weights.real > least, weights, least))
    return -known.sum((-3, -2, -1)) / alignment.any(-1).sum()


def coverage_loss(weights: Array, counted: Array) -> Array:
    """1/N sum_t sum_s min(weights[t, s], sum of weights[t', s] over t' < t), counted steps only  (See 2017, eq. 12)."""
    before = np.concatenate([np.zeros_like(weights[..., :1, :]), np.cumsum(weights, axis=-2)[..., :-1, :]], axis=-2)
    smaller = np.where(weights.real <= before.real, weights, before)
    return np.where(counted[..., None], smaller, 0).sum((-3, -2, -1)) / counted.sum()


def greedy(
    p: Parameters,
    config: Any,
    source: Array,
    lengths: Array,
    max_length: int,
    alignment: Array | None = None,
    copies: Array | None = None,
) -> tuple[list[list[int]], list[Array]]:
    """The most probable token at every step, for each sentence alone: ids with the end symbol, weights (T, S).

    alignment (B, T, S) for oracle; later steps than T have no links. copies (B, S) for a model that copies.
    """
    V = p["output.bias"].shape[-1]
    p = untied(p, config)
    ids: list[list[int]] = []
    weights: list[Array] = []
    for i in range(len(lengths)):
        memory, state = encode(p, config, source[i : i + 1], lengths[i : i + 1])
        sentence, rows, token = [], [], BEGIN
        while len(sentence) < max_length and token != END:
            y, t = embedding(p["target_embedding"], np.array([token if token < V else UNKNOWN])), len(sentence)
            given = None
            if alignment is not None:
                given = alignment[i : i + 1, t] if t < alignment.shape[1] else np.zeros((1, source.shape[1]))
            r, a, state = decoder_step(y, state, memory, lengths[i : i + 1], t, p, config, given, hard=True)
            scores = linear(r, p["output.weight"], p["output.bias"])
            if copies is not None:
                scores = copy_mixture(log_softmax(scores), a, copy_gate(r, p), copies[i : i + 1], lengths[i : i + 1])
            token = int(scores[0].argmax())
            sentence.append(token)
            rows.append(a[0])
        ids.append(sentence)
        weights.append(np.stack(rows))
    return ids, weights


def exhaustive(
    p: Parameters, config: Any, source: Array, lengths: Array, max_length: int, copies: Array | None = None
) -> list[tuple[list[int], float]]:
    """Every output of one sentence: at most `max_length` ids, the end symbol last, and log probability; best first.

    copies (1, S): for a model that copies; own words of the sentence are among the outputs.
    """
    size = p["output.bias"].shape[-1]
    own = [] if copies is None else sorted({int(v) for v in copies[0, : lengths[0]] if v >= size})
    words = [v for v in (*range(size), *own) if v != END]
    results = []
    for length in range(max_length):
        outputs = [[*words_before, END] for words_before in itertools.product(words, repeat=length)]
        target = np.array([[BEGIN, *output] for output in outputs])
        many = len(outputs)
        given = None if copies is None else np.repeat(copies, many, 0)
        log_p, _ = force(
            p, config, np.repeat(source, many, 0), np.repeat(lengths, many), target, hard=True, copies=given
        )
        totals = -token_losses(log_p, target[:, 1:]).sum(-1)
        results += [(output, float(total)) for output, total in zip(outputs, totals, strict=True)]
    return sorted(results, key=lambda result: -result[1])


def adam(
    p: Parameters,
    g: Parameters,
    m: Parameters,
    v: Parameters,
    *,
    step: int,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip: float | None = None,
) -> tuple[Parameters, Parameters, Parameters, float]:
    """Kingma and Ba 2015, algorithm 1, after clipping the global norm (Pascanu 2013); decoupled decay
    (Loshchilov 2019).

    step counts from 1. Returns p, m, v and the norm before clipping.
    """
    norm = float(np.sqrt(sum((gradient**2).sum() for gradient in g.values())))
    factor = min(1.0, clip / norm) if clip and norm > 0 else 1.0
    new_p, new_m, new_v = {}, {}, {}
    for name in p:
        gradient = g[name] * factor
        new_m[name] = beta1 * m[name] + (1 - beta1) * gradient
        new_v[name] = beta2 * v[name] + (1 - beta2) * gradient**2
        m_hat = new_m[name] / (1 - beta1**step)
        v_hat = new_v[name] / (1 - beta2**step)
        new_p[name] = p[name] - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p[name])
    return new_p, new_m, new_v, norm


def penalised(p: Parameters, g: Parameters, weight_decay: float, clip: float | None) -> tuple[Parameters, float]:
    """The gradient clipped to global norm, plus that of weight_decay |p|^2 / 2; and the norm before."""
    norm = float(np.sqrt(sum((gradient**2).sum() for gradient in g.values())))
    factor = min(1.0, clip / norm) if clip and norm > 0 else 1.0
    return {name: g[name] * factor + weight_decay * p[name] for name in p}, norm


def sgd(
    p: Parameters,
    g: Parameters,
    m: Parameters,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    clip: float | None = None,
) -> tuple[Parameters, Parameters, float]:
    """Polyak 1964 as PyTorch writes it: m = momentum m + g, p = p - lr m; returns p, m and the norm before clipping."""
    d, norm = penalised(p, g, weight_decay, clip)
    new_m = {name: momentum * m[name] + d[name] for name in p}
    return {name: p[name] - lr * new_m[name] for name in p}, new_m, norm


# ------------------------------------------------------------------------------------------------ gradients


def complex_step(function: Callable[[Parameters], Array], arrays: Parameters) -> Parameters:
    """The exact gradient of a scalar function of a few arrays: one call, with a perturbed copy per entry in front."""
    count = sum(array.size for array in arrays.values())
    copies, start = {}, 0
    for name, array in arrays.items():
        copy = np.repeat(array[None].astype(np.complex128), count, axis=0)
        entries = np.arange(array.size)
        copy.reshape(count, -1)[start + entries, entries] += 1j * STEP
        copies[name] = copy
        start += array.size
    slopes = np.broadcast_to(function(copies).imag / STEP, (count,))
    ends = np.cumsum([array.size for array in arrays.values()])
    pieces = np.split(slopes, ends[:-1])
    return {name: piece.reshape(array.shape) for (name, array), piece in zip(arrays.items(), pieces, strict=True)}


def complex_step_along(
    function: Callable[[Parameters], Array], arrays: Parameters, directions: Parameters
) -> Parameters:
    """Slopes along given directions: directions[name] (K, *shape) -> (K,). For arrays too large for every entry."""
    slopes = {}
    for name, direction in directions.items():
        count = len(direction)
        copies = {other: np.repeat(array[None].astype(np.complex128), count, axis=0) for other, array in arrays.items()}
        copies[name] += 1j * STEP * direction
        slopes[name] = np.broadcast_to(function(copies).imag / STEP, (count,))
    return slopes


def random_parameters(config: Any, rng: np.random.Generator, scale: float = 0.5) -> Parameters:
    """Normal parameters of every shape that `config` asks for: the table of names and shapes of the model."""
    return {name: scale * rng.standard_normal(shape) for name, shape in parameter_shapes(config).items()}


def parameter_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    e, h, layers = config.embedding, config.hidden, config.layers
    d, g = h * (2 if config.bidirectional else 1), GATES[config.cell] * h
    bahdanau = config.order == "bahdanau"

    def cell(prefix: str, inputs: int) -> dict[str, tuple[int, ...]]:
        shapes = {"weight_ih": (inputs, g), "weight_hh": (h, g), "bias_ih": (g,), "bias_hh": (g,)}
        shapes |= {"gain_ih": (g,), "gain_hh": (g,)} if config.layer_norm else {}
        return {f"{prefix}.{name}": shape for name, shape in shapes.items()}

    shapes: dict[str, tuple[int, ...]] = {}
    if config.source == "tokens" and config.tie != "all":
        shapes["source_embedding"] = (config.source_size, e)
    shapes["target_embedding"] = (config.target_size, e)
    for layer in range(config.layers):
        inputs = d if layer else e if config.source == "tokens" else config.source_size
        for direction in ("forward", "backward")[: 1 + config.bidirectional]:
            shapes |= cell(f"encoder.{layer}.{direction}", inputs)
    columns = layers * h * (2 if config.cell == "lstm" else 1)
    shapes |= {"initial.weight": (h, columns), "initial.bias": (columns,)}
    attention = attention_shapes(setting_of(config), h, d, h, config.max_source)
    shapes |= {f"attention.{name}": shape for name, shape in attention.items()}
    below = e + d if bahdanau else 2 * e if config.input_feeding else e
    for layer in range(layers):
        shapes |= cell(f"decoder.{layer}", h if layer else below)
    shapes |= {"readout.weight": (h + d + (e if bahdanau else 0), e), "readout.bias": (e,)}
    output = {"output.weight": (e, config.target_size)} if config.tie == "none" else {}
    shapes |= output | {"output.bias": (config.target_size,)}
    return shapes | ({"copy.weight": (e, 1), "copy.bias": (1,)} if getattr(config, "copy", False) else {})


# ------------------------------------------------------------------------------------------------ comparing


SIZES = (1, 2, 5, 7, 13, 40, 100)  # every vector tail, and rows longer than one vector
MOST_ENTRIES = 600  # above this, a gradient is compared along random directions instead of entry by entry


def assert_gradients(
    function: Callable[[Parameters], Array], arrays: Parameters, gradients: Parameters, rng: np.random.Generator
) -> None:
    """float64 gradients equal the complex-step slopes of `function`, by entry or along three directions an array."""
    assert gradients.keys() == arrays.keys()
    for name, array in arrays.items():
        assert gradients[name].shape == array.shape, name
    if sum(array.size for array in arrays.values()) <= MOST_ENTRIES:
        expected, actual = complex_step(function, arrays), gradients
    else:
        directions = {name: rng.standard_normal((3, *array.shape)) for name, array in arrays.items()}
        expected = complex_step_along(function, arrays, directions)
        actual = {name: (directions[name] * gradients[name]).reshape(3, -1).sum(-1) for name in arrays}
    for name in arrays:
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-9, rtol=1e-6, err_msg=name)


def assert_rounded(actual: Array, expected: Array, terms: int) -> None:
    """The difference is rounding: 4 eps sqrt(terms) of the largest entry, for a longest chain of `terms` additions."""
    assert actual.shape == expected.shape
    largest = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    bound = 4 * np.finfo(actual.dtype).eps * np.sqrt(terms) * largest
    np.testing.assert_allclose(actual, expected, atol=bound, rtol=0)
