"""The NumPy specification itself against PyTorch in float64, where torch happens to be installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dhyan import ModelConfig
from spec import model as reference

torch = pytest.importorskip("torch", reason="torch is not installed; it only confirms the NumPy specification")

LENGTHS = np.array([5, 1, 3])


def gates_last(weight: np.ndarray) -> Any:
    """Our (in, out) weight as torch's (out, in)."""
    return torch.tensor(weight.T if weight.ndim == 2 else weight)


def as_torch(p: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in p.items()}


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_packed_bidirectional_layers(cell: str) -> None:
    config = ModelConfig(
        embedding=4, hidden=3, layers=2, cell=cell, bidirectional=True, attention="dot", order="luong",
        input_feeding=False, source="features", source_size=4, target_size=5,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    p = {n: v for n, v in reference.random_parameters(config, rng).items() if n.startswith("encoder")}
    x = rng.standard_normal((3, 5, 4))
    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    net = layer(4, 3, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
    for name, value in p.items():
        _, number, direction, kind = name.split(".")
        suffix = "_reverse" if direction == "backward" else ""
        getattr(net, f"{kind}_l{number}{suffix}").data = gates_last(value)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    output, final = net(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    final = final[0] if cell == "lstm" else final
    memory, last = reference.encoder(x, LENGTHS, p, config)
    np.testing.assert_allclose(memory, expected.detach(), atol=1e-14)
    np.testing.assert_allclose(last, final[-1].detach(), atol=1e-14)

    weight = rng.standard_normal(memory.shape)
    (expected * torch.tensor(weight)).sum().backward()
    slopes = reference.complex_step(
        lambda q: (reference.encoder(x, LENGTHS, q, config)[0] * weight).sum((-3, -2, -1)), p
    )
    for name in p:
        _, number, direction, kind = name.split(".")
        suffix = "_reverse" if direction == "backward" else ""
        gradient = getattr(net, f"{kind}_l{number}{suffix}").grad.numpy()
        np.testing.assert_allclose(slopes[name], gradient.T if gradient.ndim == 2 else gradient, atol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    rng = np.random.default_rng(1)
    arrays = {n: rng.standard_normal(s) for n, s in {"r": (6, 3), "weight": (3, 7), "bias": (7,)}.items()}
    targets = np.array([0, 6, -1, 3, 3, -1])

    def total(a: dict[str, np.ndarray]) -> np.ndarray:
        return reference.cross_entropy(a["r"], a["weight"], a["bias"], targets, smoothing=smoothing)

    t = as_torch(arrays)
    expected = torch.nn.functional.cross_entropy(
        t["r"] @ t["weight"] + t["bias"], torch.tensor(targets), ignore_index=-1, reduction="sum",
        label_smoothing=smoothing,
    )  # fmt: skip
    expected.backward()
    np.testing.assert_allclose(total(arrays), expected.item(), rtol=1e-14)
    slopes = reference.complex_step(total, arrays)
    for name in arrays:
        np.testing.assert_allclose(slopes[name], t[name].grad, atol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adam_with_clipping(decay: float) -> None:
    rng = np.random.default_rng(2)
    p = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    t = as_torch(p)
    optimizer = torch.optim.AdamW(t.values(), lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=decay)
    for step in range(1, 6):
        g = {name: rng.standard_normal(value.shape) / step for name, value in p.items()}
        for name in p:
            t[name].grad = torch.tensor(g[name])
        expected = torch.nn.utils.clip_grad_norm_(t.values(), 1.5).item()
        optimizer.step()
        options = {"lr": 0.01, "beta2": 0.99, "weight_decay": decay, "clip": 1.5}
        p, m, v, norm = reference.adam(p, g, m, v, step=step, **options)
        np.testing.assert_allclose(norm, expected, rtol=1e-14)
        for name in p:  # torch divides the clip by norm + 1e-6
            np.testing.assert_allclose(p[name], t[name].detach(), rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_sgd_and_adam_with_an_l2_penalty(decay: float) -> None:
    rng = np.random.default_rng(2)
    start = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    gradients = [{name: rng.standard_normal(value.shape) / step for name, value in start.items()} for step in (1, 2, 3)]
    for kind in ("sgd", "adam"):
        p, t = start, as_torch(start)
        m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
        optimizer = (
            torch.optim.SGD(t.values(), lr=0.01, momentum=0.9, weight_decay=decay)
            if kind == "sgd"
            else torch.optim.Adam(t.values(), lr=0.01, weight_decay=decay)
        )
        for step, g in enumerate(gradients, 1):
            for name in p:
                t[name].grad = torch.tensor(g[name])
            torch.nn.utils.clip_grad_norm_(t.values(), 1.5)
            optimizer.step()
            if kind == "sgd":
                p, m, _ = reference.sgd(p, g, m, lr=0.01, momentum=0.9, weight_decay=decay, clip=1.5)
            else:
                d, _ = reference.penalised(p, g, decay, 1.5)
                p, m, v, _ = reference.adam(p, d, m, v, step=step, lr=0.01)
            for name in p:  # torch divides the clip by norm + 1e-6
                np.testing.assert_allclose(p[name], t[name].detach(), rtol=1e-6)


@pytest.mark.parametrize("order", ["bahdanau", "luong"])
def test_whole_model(order: str) -> None:
    """LSTM, additive, either order with input feeding: built from torch.nn parts, loss and every gradient."""
    config = ModelConfig(
        embedding=4, hidden=3, layers=1, cell="lstm", bidirectional=True, attention="additive", order=order,
        input_feeding=True, source="tokens", source_size=6, target_size=7, window=None,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    p = reference.random_parameters(config, rng)
    batch = SimpleNamespace(
        source=rng.integers(1, 6, (3, 5)), source_lengths=LENGTHS,
        target=rng.integers(1, 7, (3, 5)), target_lengths=np.array([3, 5, 2]),
    )  # fmt: skip
    t = as_torch(p)
    memory, (h, c) = torch_encoder(t, batch)
    losses, r = [], torch.zeros(3, 4, dtype=torch.float64)

    def read(query: Any) -> Any:
        keys = memory @ t["attention.memory"] + t["attention.bias"]
        scores = torch.tanh((query @ t["attention.query"])[:, None] + keys) @ t["attention.v"]
        scores = scores.masked_fill(torch.arange(5) >= torch.tensor(LENGTHS)[:, None], float("-inf"))
        return (torch.softmax(scores, -1)[..., None] * memory).sum(1)

    for step in range(4):
        y = t["target_embedding"][batch.target[:, step]]
        if order == "bahdanau":
            context = read(h)
            h, c = torch_lstm(torch.cat([y, context], -1), h, c, t, "decoder.0")
            seen = torch.cat([y, h, context], -1)
        else:
            h, c = torch_lstm(torch.cat([y, r], -1), h, c, t, "decoder.0")
            seen = torch.cat([h, read(h)], -1)
        r = torch.tanh(seen @ t["readout.weight"] + t["readout.bias"])
        logits = r @ t["output.weight"] + t["output.bias"]
        targets = torch.tensor(np.where(step < batch.target_lengths - 1, batch.target[:, step + 1], -1))
        losses.append(torch.nn.functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum"))
    expected = sum(losses) / int((batch.target_lengths - 1).sum())
    expected.backward()
    np.testing.assert_allclose(reference.loss(p, config, batch), expected.item(), rtol=1e-14)
    slopes = reference.complex_step(lambda q: reference.loss(q, config, batch), p)
    for name in p:
        np.testing.assert_allclose(slopes[name], t[name].grad, atol=1e-14, err_msg=name)


def torch_lstm(x: Any, h: Any, c: Any, t: dict[str, Any], prefix: str) -> tuple[Any, Any]:
    weights = [t[f"{prefix}.{kind}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return torch.lstm_cell(x, (h, c), weights[0].T, weights[1].T, weights[2], weights[3])


def torch_encoder(t: dict[str, Any], batch: Any) -> tuple[Any, Any]:
    """One sentence at a time, at its own length, with lstm_cell; zeros behind the end."""
    rows, finals = [], []
    for ids, length in zip(batch.source, batch.source_lengths, strict=True):
        x = t["source_embedding"][ids[:length]]
        outputs = []
        for direction, order in (("forward", range(length)), ("backward", reversed(range(length)))):
            h = c = torch.zeros(1, 3, dtype=torch.float64)
            states = {}
            for s in order:
                h, c = torch_lstm(x[s : s + 1], h, c, t, f"encoder.0.{direction}")
                states[s] = h[0]
            outputs.append(torch.stack([states[s] for s in range(length)]))
        finals.append(h[0])
        rows.append(torch.nn.functional.pad(torch.cat(outputs, -1), (0, 0, 0, 5 - length)))
    start = torch.tanh(torch.stack(finals) @ t["initial.weight"] + t["initial.bias"])
    return torch.stack(rows), (start[:, :3], start[:, 3:])
