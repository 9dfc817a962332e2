"""The same encoder-decoder as dhyan.Seq2Seq (additive attention, Bahdanau's order, one layer) in plain PyTorch.

Written to be fast: fused nn.GRU / nn.LSTM encoder, keys projected once, readout, output layer and loss once over all
steps. `split` moves the part of the decoder's gates that comes from the target embedding out of the loop as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class Seq2SeqTwin(nn.Module):
    """Parameters are those of dhyan, transposed: see `load` and `gradients`."""

    def __init__(self, source_size: int, target_size: int, E: int, H: int, cell: str, *, dropout: float = 0.0) -> None:
        super().__init__()
        layer, step = {"gru": (nn.GRU, nn.GRUCell), "lstm": (nn.LSTM, nn.LSTMCell)}[cell]
        self.cell, self.hidden, self.embedding, self.rate = cell, H, E, dropout
        self.source, self.target = nn.Embedding(source_size, E), nn.Embedding(target_size, E)
        self.encoder = layer(E, H, bidirectional=True, batch_first=True)
        self.initial = nn.Linear(H, 2 * H if cell == "lstm" else H)
        self.query, self.memory = nn.Linear(H, H, bias=False), nn.Linear(2 * H, H)
        self.v = nn.Parameter(torch.empty(H))
        self.decoder = step(E + 2 * H, H)
        self.readout = nn.Linear(E + 3 * H, E)
        self.output = nn.Linear(E, target_size)

    def places(self) -> dict[str, tuple[Tensor, bool]]:
        """dhyan's parameter name -> (parameter, transposed)."""
        found: dict[str, tuple[Tensor, bool]] = {
            "source_embedding": (self.source.weight, False), "target_embedding": (self.target.weight, False),
            "initial.weight": (self.initial.weight, True), "initial.bias": (self.initial.bias, False),
            "attention.query": (self.query.weight, True), "attention.memory": (self.memory.weight, True),
            "attention.bias": (self.memory.bias, False), "attention.v": (self.v, False),
            "readout.weight": (self.readout.weight, True), "readout.bias": (self.readout.bias, False),
            "output.weight": (self.output.weight, True), "output.bias": (self.output.bias, False),
        }  # fmt: skip
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            flip = kind.startswith("weight")
            found[f"decoder.0.{kind}"] = (getattr(self.decoder, kind), flip)
            for direction, suffix in (("forward", ""), ("backward", "_reverse")):
                found[f"encoder.0.{direction}.{kind}"] = (getattr(self.encoder, f"{kind}_l0{suffix}"), flip)
        return found

    def load(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Take dhyan's parameters over."""
        with torch.no_grad():
            for name, (parameter, flip) in self.places().items():
                value = torch.from_numpy(np.array(parameters[name]))
                parameter.copy_(value.T if flip else value)

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients under dhyan's names and in its layout."""
        out = {}
        for name, (parameter, flip) in self.places().items():
            assert parameter.grad is not None
            out[name] = (parameter.grad.T if flip else parameter.grad).numpy().copy()
        return out

    def drop(self, x: Tensor) -> Tensor:
        """Dropout where dhyan has it."""
        return F.dropout(x, self.rate, self.training) if self.rate else x

    def encode(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, State]:
        """Memory, keys and the first state; lengths=None: all sentences are full."""
        embedded = self.drop(self.source(x))
        if lengths is None:
            memory, last = self.encoder(embedded)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            packed, last = self.encoder(packed)
            memory, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        memory = self.drop(memory)
        final = (last[0] if self.cell == "lstm" else last)[1]
        states = torch.tanh(self.initial(final))
        h, c = states.chunk(2, -1) if self.cell == "lstm" else (states, states)
        return memory, self.memory(memory), (h, c)

    def read(self, h: Tensor, memory: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """The context vector of one step."""
        scores = torch.tanh(self.query(h)[:, None] + keys) @ self.v
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        return torch.bmm(torch.softmax(scores, -1)[:, None], memory)[:, 0]

    def advance(self, y: Tensor, context: Tensor, state: State) -> State:
        """The decoder's cell on [y; context]."""
        x = torch.cat([y, context], -1)
        if self.cell == "lstm":
            return self.decoder(x, state)
        h = self.decoder(x, state[0])
        return h, h

    def advance_split(self, gates: Tensor, context: Tensor, state: State, W: Tensor) -> State:
        """The same, given what y adds to the gates; W is the context's part of weight_ih."""
        gates = gates + F.linear(context, W)
        recurrent = F.linear(state[0], self.decoder.weight_hh, self.decoder.bias_hh)
        if self.cell == "lstm":
            i, f, g, o = (gates + recurrent).chunk(4, -1)
            c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c
        (xr, xz, xn), (hr, hz, hn) = gates.chunk(3, -1), recurrent.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = n + z * (state[0] - n)
        return h, h

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        split: bool = False,
        lengths: Tensor | None = None,
        smoothing: float = 0.0,
    ) -> Tensor:
        """Mean cross entropy per target token; target ids of 0 are padding where `lengths` are given."""
        memory, keys, state = self.encode(x, lengths)
        mask = None if lengths is None else torch.arange(x.shape[1]) >= lengths[:, None]
        y = self.drop(self.target(target[:, :-1]))
        E = self.embedding
        if split:
            gates = F.linear(y, self.decoder.weight_ih[:, :E], self.decoder.bias_ih).unbind(1)
            W = self.decoder.weight_ih[:, E:].contiguous()
        states, contexts = [], []
        for t in range(target.shape[1] - 1):
            context = self.read(state[0], memory, keys, mask)
            state = self.advance_split(gates[t], context, state, W) if split else self.advance(y[:, t], context, state)
            states.append(state[0])
            contexts.append(context)
        r = torch.tanh(self.readout(torch.cat([y, torch.stack(states, 1), torch.stack(contexts, 1)], -1)))
        logits = self.output(self.drop(r)).flatten(0, 1)
        ignored = -100 if lengths is None else 0
        return F.cross_entropy(logits, target[:, 1:].flatten(), ignore_index=ignored, label_smoothing=smoothing)

    def decode_step(
        self, ids: Tensor, state: State, memory: Tensor, keys: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, State]:
        """One greedy step: the likeliest next ids and the next state."""
        y = self.target(ids)
        context = self.read(state[0], memory, keys, mask)
        state = self.advance(y, context, state)
        r = torch.tanh(self.readout(torch.cat([y, state[0], context], -1)))
        return self.output(r).argmax(-1), state

    @torch.inference_mode()
    def greedy(self, x: Tensor, steps: int, lengths: Tensor | None = None, step: object = None) -> Tensor:
        """ids (B, steps); does not stop at the end symbol unless all sentences have ended. step: a compiled one."""
        advance = step if callable(step) else self.decode_step
        memory, keys, state = self.encode(x, lengths)
        mask = None if lengths is None else torch.arange(x.shape[1]) >= lengths[:, None]
        ids, out = torch.ones(len(x), dtype=torch.long), []
        ended = torch.zeros(len(x), dtype=torch.bool)
        for _ in range(steps):
            ids, state = advance(ids, state, memory, keys, mask)
            out.append(ids)
            if lengths is not None:
                ended |= ids == 2
                if bool(ended.all()):
                    break
        return torch.stack(out, 1)
