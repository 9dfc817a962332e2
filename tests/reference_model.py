"""The recurrent encoder-decoder as a readable NumPy specification: float64 for values, complex128 for exact slopes.

One file, read top to bottom, because it is the definition that every other test leans on.

Shapes are written (B, S, I) as in the README, but every array may carry one more axis in front: `...` in the formulas.
It holds many perturbed copies of the parameters, so one call of the model gives the whole complex-step gradient:

    f(x + i h) = f(x) + i h f'(x) + O(h^2)    with h = 1e-30 the slope imag(f) / h is exact to rounding.

That asks for analytic formulas: no abs, no conjugate, and decisions (maximum, zero, mask) look at real parts only.
All weights are stored (in, out): y = x W + b. Ids: 0 pad, 1 begin, 2 end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Parameters = dict[str, Array]

BEGIN, END = 1, 2
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


def linear_sequence(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (B, S, I) -> (B, S, O): the same at every position."""
    y = np.einsum("...bsi,...io->...bso", x, weight)
    return y if bias is None else y + bias[..., None, None, :]


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def softmax(scores: Array, allowed: Array) -> Array:
    """Over the last axis and the allowed positions only; nothing allowed gives zeros."""
    shift = np.where(allowed, scores.real, -np.inf).max(-1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, 0.0)
    e = np.where(allowed, np.exp(np.where(allowed, scores - shift, 0.0)), 0.0)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total.real > 0, total, 1.0)


def log_softmax(logits: Array) -> Array:
    z = logits - logits.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


# ------------------------------------------------------------------------------------------------ recurrent layers


def rnn_cell(x: Array, h: Array, c: Array | None, p: Parameters) -> tuple[Array, Array | None]:
    """h' = tanh(x W_ih + b_ih + h W_hh + b_hh)  (Elman 1990)."""
    return np.tanh(linear(x, p["weight_ih"], p["bias_ih"]) + linear(h, p["weight_hh"], p["bias_hh"])), None


def lstm_cell(x: Array, h: Array, c: Array | None, p: Parameters) -> tuple[Array, Array | None]:
    """Gates i f g o; c' = f c + i g, h' = o tanh(c')  (Hochreiter and Schmidhuber 1997, Gers 2000)."""
    gates = linear(x, p["weight_ih"], p["bias_ih"]) + linear(h, p["weight_hh"], p["bias_hh"])
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_cell(x: Array, h: Array, c: Array | None, p: Parameters) -> tuple[Array, Array | None]:
    """Gates r z n, the reset gate after the product: n = tanh(x_n + r h_n), h' = (1 - z) n + z h  (Cho 2014)."""
    xr, xz, xn = np.split(linear(x, p["weight_ih"], p["bias_ih"]), 3, axis=-1)
    hr, hz, hn = np.split(linear(h, p["weight_hh"], p["bias_hh"]), 3, axis=-1)
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
        new_h, new_c = CELLS[cell](np.where(alive, x[..., s, :], 0), h, c, p)
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
    Dropout follows every layer; the recurrence and the final state do not see it.
    """
    for layer in range(config.layers):
        output, final, _ = recurrent(x, lengths, part(p, f"encoder.{layer}.forward"), cell=config.cell)
        if config.bidirectional:
            weights = part(p, f"encoder.{layer}.backward")
            backward, final, _ = recurrent(x, lengths, weights, cell=config.cell, reverse=True)
            output = np.concatenate([output, backward], axis=-1)
        x = drop(output, masks, f"encoder {layer}")
    return x, final


# ------------------------------------------------------------------------------------------------ the read


def reading_range(name: str, lengths: Array, positions: int, t: int, radius: int | None) -> Array:
    """(B, S) bool: the positions that target step t may attend."""
    s = np.arange(positions)
    last = lengths[:, None] - 1
    allowed = s <= last
    if radius is not None:
        allowed = allowed & (np.abs(s - np.minimum(t, last)) <= radius)
    if name == "none":
        after = np.append(allowed[:, 1:], np.zeros((len(lengths), 1), bool), axis=1)
        allowed = allowed & ~after
    return allowed


def narrow_keys(memory: Array, width: int) -> Array:
    """Memory as wide as the query: itself, or the sum of its forward and backward halves."""
    return memory if memory.shape[-1] == width else memory[..., :width] + memory[..., width:]


def product(q: Array, keys: Array) -> Array:
    return np.einsum("...bh,...bsh->...bs", q, keys)


def length_of(x: Array) -> Array:
    """Euclidean length over the last axis; exactly 0 for a zero vector."""
    square = (x * x).sum(-1)
    zero = square.real <= 0
    return np.where(zero, 0, np.sqrt(np.where(zero, 1, square)))


def cosine_score(q: Array, memory: Array, p: Parameters) -> Array:
    """exp(log_sharpness) q.k / (|q| |k|), zero vectors score 0  (Graves 2014)."""
    keys = narrow_keys(memory, q.shape[-1])
    norms = length_of(q)[..., None] * length_of(keys)
    zero = norms.real == 0
    cosine = np.where(zero, 0, product(q, keys) / np.where(zero, 1, norms))
    return np.exp(p["log_sharpness"])[..., None, :] * cosine


def tanh_score(q: Array, memory: Array, wq: Array, wm: Array, bias: Array | None, v: Array) -> Array:
    hidden = np.tanh(linear(q, wq)[..., None, :] + linear_sequence(memory, wm, bias))
    return np.einsum("...bsu,...u->...bs", hidden, v)


def score(name: str, q: Array, memory: Array, p: Parameters) -> Array:
    """q (B, H), memory (B, S, D) -> scores (B, S), before mask and softmax."""
    width = q.shape[-1]
    match name:
        case "dot":
            return product(q, narrow_keys(memory, width))
        case "scaled_dot":
            return product(q, narrow_keys(memory, width)) * width**-0.5
        case "cosine":
            return cosine_score(q, memory, p)
        case "general":
            return product(linear(q, p["weight"]), memory)
        case "additive":
            return tanh_score(q, memory, p["query"], p["memory"], p["bias"], p["v"])
        case "concat":
            return tanh_score(q, memory, p["weight"][..., :width, :], p["weight"][..., width:, :], None, p["v"])
    raise ValueError(name)


def read(
    name: str,
    q: Array,
    memory: Array,
    lengths: Array,
    p: Parameters,
    *,
    t: int = 0,
    radius: int | None = None,
    alignment: Array | None = None,
) -> tuple[Array, Array]:
    """One target step: q (B, H), memory (B, S, D) -> context (B, D), weights (B, S). alignment (B, S) for oracle."""
    allowed = reading_range(name, lengths, memory.shape[-2], t, radius)
    if name == "oracle":
        assert alignment is not None
        weights = np.where(allowed, alignment, 0.0)
    elif name in ("none", "uniform"):
        weights = allowed / np.maximum(allowed.sum(-1, keepdims=True), 1)
    else:
        weights = softmax(score(name, q, memory, p), allowed)
    return np.einsum("...bs,...bsd->...bd", weights, memory), weights


# ------------------------------------------------------------------------------------------------ the decoder


State = tuple[list[Array], list[Array | None], Array | None]  # h and c of every layer, the readout before


def initial_state(final: Array, p: Parameters, config: Any) -> State:
    """tanh(final W + b) cut into h of every layer, then c of every layer; no readout has been fed yet."""
    columns = np.tanh(linear(final, p["initial.weight"], p["initial.bias"]))
    pieces = np.split(columns, columns.shape[-1] // config.hidden, axis=-1)
    h, c = pieces[: config.layers], pieces[config.layers :]
    return h, list(c) if config.cell == "lstm" else [None] * config.layers, None


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
) -> tuple[Array, Array, State]:
    """Embedded previous token y (B, E) -> readout r (B, E), weights (B, S), next state.

    Bahdanau 2014: read with the previous state, then the cell on [y; c].
    Luong 2015: the cell on [y; r_{t-1}] (or y), then read.
    Dropout stands between layers; the state and the readout handed to the next step do not see it.
    """
    h, c, fed = state
    query_options = {"t": t, "radius": radius_of(config), "alignment": alignment}
    attention = part(p, "attention")
    if config.order == "bahdanau":
        context, weights = read(config.attention, h[-1], memory, lengths, attention, **query_options)
        x = concatenate(y, context)
    elif config.input_feeding:
        x = concatenate(y, np.zeros(y.shape) if fed is None else fed)
    else:
        x = y
    new_h, new_c = [], []
    for layer in range(config.layers):
        top, cell_state = CELLS[config.cell](x, h[layer], c[layer], part(p, f"decoder.{layer}"))
        new_h.append(top)
        new_c.append(cell_state)
        x = drop(top, masks, f"decoder layer {layer}, step {t}")
    if config.order == "bahdanau":
        seen = concatenate(y, top, context)
    else:
        context, weights = read(config.attention, top, memory, lengths, attention, **query_options)
        seen = concatenate(top, context)
    r = np.tanh(linear(seen, p["readout.weight"], p["readout.bias"]))
    return r, weights, (new_h, new_c, r)


def concatenate(*pieces: Array) -> Array:
    """Joined along the last axis, the others broadcast."""
    shape = np.broadcast_shapes(*(piece.shape[:-1] for piece in pieces))
    return np.concatenate([np.broadcast_to(piece, (*shape, piece.shape[-1])) for piece in pieces], axis=-1)


def radius_of(config: Any) -> int | None:
    return getattr(config.window, "radius", config.window)


def encode(
    p: Parameters, config: Any, source: Array, lengths: Array, masks: Masks | None = None
) -> tuple[Array, State]:
    """Token ids (B, S) or features (B, S, F) -> memory and the decoder's initial state."""
    x = embedding(p["source_embedding"], source) if config.source == "tokens" else source
    memory, final = encoder(drop(x, masks, "source embedding"), lengths, p, config, masks)
    return memory, initial_state(final, p, config)


def force(
    p: Parameters,
    config: Any,
    source: Array,
    source_lengths: Array,
    target: Array,
    alignment: Array | None = None,
    masks: Masks | None = None,
) -> tuple[Array, Array]:
    """Teacher forcing: target (B, T+1) -> log probabilities of every token (B, T, V), weights (B, T, S)."""
    memory, state = encode(p, config, source, source_lengths, masks)
    log_probabilities, weights = [], []
    for t in range(target.shape[1] - 1):
        y = drop(embedding(p["target_embedding"], target[:, t]), masks, f"target embedding, step {t}")
        given = None if alignment is None else alignment[..., t, :]
        r, a, state = decoder_step(y, state, memory, source_lengths, t, p, config, given, masks)
        r = drop(r, masks, f"readout, step {t}")
        log_probabilities.append(log_softmax(linear(r, p["output.weight"], p["output.bias"])))
        weights.append(a)
    return np.stack(log_probabilities, axis=-2), np.stack(weights, axis=-2)


# ------------------------------------------------------------------------------------------------ loss, search, Adam


def token_losses(log_probabilities: Array, targets: Array, smoothing: float = 0.0) -> Array:
    """-((1 - eps) log p[y] + eps/V sum_v log p[v])  (Szegedy 2016); a negative target gives 0."""
    ids = np.broadcast_to(np.maximum(targets, 0), log_probabilities.shape[:-1])
    chosen = np.take_along_axis(log_probabilities, ids[..., None], axis=-1)[..., 0]
    return np.where(targets >= 0, -((1 - smoothing) * chosen + smoothing * log_probabilities.mean(-1)), 0)


def cross_entropy(r: Array, weight: Array, bias: Array, targets: Array, *, smoothing: float = 0.0) -> Array:
    """r (N, E), output weight (E, V): the sum of the token losses."""
    return token_losses(log_softmax(linear(r, weight, bias)), targets, smoothing).sum(-1)


def loss(
    p: Parameters,
    config: Any,
    batch: Any,
    *,
    smoothing: float = 0.0,
    alignment: Array | None = None,
    masks: Masks | None = None,
) -> Array:
    """The whole model: mean negative log-likelihood per target token, in nats. batch as dhyan.Batch."""
    log_p, _ = force(p, config, batch.source, batch.source_lengths, batch.target, alignment, masks)
    counted = np.arange(batch.target.shape[1] - 1) < batch.target_lengths[:, None] - 1
    targets = np.where(counted, batch.target[:, 1:], -1)
    return token_losses(log_p, targets, smoothing).sum((-2, -1)) / counted.sum()


def greedy(
    p: Parameters, config: Any, source: Array, lengths: Array, max_length: int
) -> tuple[list[list[int]], list[Array]]:
    """The most probable token at every step, for each sentence alone: ids with the end symbol, weights (T, S)."""
    ids: list[list[int]] = []
    weights: list[Array] = []
    for i in range(len(lengths)):
        memory, state = encode(p, config, source[i : i + 1], lengths[i : i + 1])
        sentence, rows, token = [], [], BEGIN
        while len(sentence) < max_length and token != END:
            y = embedding(p["target_embedding"], np.array([token]))
            r, a, state = decoder_step(y, state, memory, lengths[i : i + 1], len(sentence), p, config)
            token = int(linear(r, p["output.weight"], p["output.bias"])[0].argmax())
            sentence.append(token)
            rows.append(a[0])
        ids.append(sentence)
        weights.append(np.stack(rows))
    return ids, weights


def exhaustive(
    p: Parameters, config: Any, source: Array, lengths: Array, max_length: int
) -> list[tuple[list[int], float]]:
    """Every output of one sentence: at most `max_length` ids, the end symbol last, and log probability; best first."""
    words = [v for v in range(p["output.bias"].shape[-1]) if v != END]
    results = []
    for length in range(max_length):
        outputs = [[*words_before, END] for words_before in itertools.product(words, repeat=length)]
        target = np.array([[BEGIN, *output] for output in outputs])
        many = len(outputs)
        log_p, _ = force(p, config, np.repeat(source, many, 0), np.repeat(lengths, many), target)
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
        return {f"{prefix}.{name}": shape for name, shape in shapes.items()}

    shapes: dict[str, tuple[int, ...]] = {}
    if config.source == "tokens":
        shapes["source_embedding"] = (config.source_size, e)
    shapes["target_embedding"] = (config.target_size, e)
    for layer in range(config.layers):
        inputs = d if layer else e if config.source == "tokens" else config.source_size
        for direction in ("forward", "backward")[: 1 + config.bidirectional]:
            shapes |= cell(f"encoder.{layer}.{direction}", inputs)
    columns = layers * h * (2 if config.cell == "lstm" else 1)
    shapes |= {"initial.weight": (h, columns), "initial.bias": (columns,)}
    attention: dict[str, dict[str, tuple[int, ...]]] = {
        "cosine": {"log_sharpness": (1,)},
        "general": {"weight": (h, d)},
        "additive": {"query": (h, h), "memory": (d, h), "bias": (h,), "v": (h,)},
        "concat": {"weight": (h + d, h), "v": (h,)},
    }
    shapes |= {f"attention.{name}": shape for name, shape in attention.get(config.attention, {}).items()}
    below = e + d if bahdanau else 2 * e if config.input_feeding else e
    for layer in range(layers):
        shapes |= cell(f"decoder.{layer}", h if layer else below)
    shapes |= {"readout.weight": (h + d + (e if bahdanau else 0), e), "readout.bias": (e,)}
    return shapes | {"output.weight": (e, config.target_size), "output.bias": (config.target_size,)}


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
