"""The encoder-attend-decode model: parameters, loss and gradient, greedy decoding, and the steps search is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dhyan import ops
from dhyan.errors import NumericError, unknown_name
from dhyan.search.beam import Hypothesis, greedy_search
from dhyan.text.batch import Batch, check_ids
from dhyan.text.vocabulary import BEGIN, END, PAD, UNKNOWN

from . import decoder
from . import steps as stepping
from .arrays import Arrays
from .config import ModelConfig
from .copying import CopyCache, check_copies
from .dropout import Dropout, apply
from .encoder import EncoderCache, encoder_backward, encoder_forward
from .loss import CopyLoss, OutputLoss, coverage_loss, guided_loss
from .parameters import initial_parameters, tied_gradients, untied
from .rounding import round_to_bfloat16, round_to_bytes
from .scheduled_sampling import mixed_tokens
from .steps import DecoderState

ROUNDED_WEIGHTS = ("bfloat16", "int8")


@dataclass(frozen=True)
class ModelCache:
    """What Seq2Seq.backward reads; it may be used again and gives the same bits."""

    config: ModelConfig
    encoder: EncoderCache
    decoder: decoder.DecoderCache
    output: OutputLoss | CopyLoss
    mask: np.ndarray | None
    dweights: np.ndarray | None  # (N, S), of the losses on the attention weights
    bf16: bool  # the products of this pass


class Seq2Seq:
    """Encoder, attention, decoder (Bahdanau 2014, Luong 2015) in one object that owns parameters and nothing else.

        memory = encoder(source)                      rnn, lstm or gru; forward and backward states side by side
        s_0 = tanh(final W + b)                       final: the encoder's last state (backward direction)
        Bahdanau:  c_t = read(s_{t-1});  s_t = cell([y_t; c_t], s_{t-1});  r_t = tanh([y_t; s_t; c_t] W + b)
        Luong:     s_t = cell([y_t; r_{t-1}], s_{t-1});  c_t = read(s_t);  r_t = tanh([s_t; c_t] W + b)
        p(next token) = softmax(r_t W_out + b_out), mixed with the source's words where config.copy (`copying`)

    read(s) = sum_s weights[s] memory[s], weights = softmax over the sentence of score(s, memory).
    r has the width of the embedding; the lstm's first cell state comes from `final` like its hidden state.
    parameters() are views into `flat`: writing to them changes the model. dtype: "float32" or "float64".
    bf16: training passes (forward with a step, and its backward) round the factors of matrix products to bfloat16;
    sums, parameters, gradients and everything else stay float32. Twice the speed where the CPU has AVX512-BF16.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, dtype: str = "float32", *, bf16: bool = False) -> None:
        if not isinstance(config, ModelConfig):
            raise TypeError(f"Seq2Seq: config is of type {type(config).__name__}, expected ModelConfig")
        if np.dtype(dtype) not in (np.dtype("float32"), np.dtype("float64")):
            raise TypeError(f"Seq2Seq: dtype is {dtype}, expected float32 or float64")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
            raise ValueError(f"Seq2Seq: seed is {seed!r}, expected an integer, 0 to 2**63 - 1")
        if bf16 and not (np.dtype(dtype) == np.float32 and ops.has_bf16()):
            have = ", ".join(ops.show_config()["isas"])
            raise ValueError(
                f"Seq2Seq: bf16 needs dtype float32 and a CPU with AVX512-BF16, got {dtype} and a CPU with {have}"
            )
        self.config = config
        self.bf16 = bf16
        self.seed = seed
        self.dtype = np.dtype(dtype)
        self._parameters = initial_parameters(config, seed, self.dtype)
        self._step_weights: Any = None
        self._frozen: Arrays | None = None  # what _layers makes, kept

    def _layers(self) -> Arrays:
        """The parameters under the names that the layers read: see `parameters`."""
        return untied(self.config, self._parameters) if self._frozen is None else self._frozen

    def freeze(self, weights: str | None = None) -> None:
        """Make the parameters read-only, so that decoding keeps what it makes of them from call to call.

        That is packed weights, a screen of the output layer and what each target token adds to the gates; results do
        not change. `dhyan.load` does it. Without it they are made again by every call.
        weights="bfloat16" first rounds every matrix to the nearest bfloat16 numbers (8 bits of precision, for good):
        the model is then a slightly different one, and decoding few sentences reads half the bytes. "int8" rounds every
        matrix but the embeddings to bytes times a power of two for each output, and a quarter is read.
        Errors: ValueError for another name, for a float64 model, and where the model is frozen already.
        """
        if weights is not None and weights not in ROUNDED_WEIGHTS:
            raise unknown_name("Seq2Seq.freeze: weights", weights, ROUNDED_WEIGHTS)
        if weights is not None:
            if self.dtype != np.float32:
                raise ValueError(f"Seq2Seq.freeze: the model is {self.dtype}, expected float32 for {weights} weights")
            if self._step_weights is not None:
                raise ValueError(f"Seq2Seq.freeze: the model is frozen, expected {weights} weights at the first call")
            for name, array in self._parameters.items():
                if array.ndim == 2 and weights == "bfloat16":
                    round_to_bfloat16(array)
                elif array.ndim == 2 and not name.endswith("_embedding"):
                    round_to_bytes(array)
        for array in (self._parameters.flat, *self._parameters.values()):
            array.flags.writeable = False
        if self._step_weights is None:
            self._frozen = self._layers()
            self._step_weights = stepping.step_weights(self.config, self._frozen, shrunk=weights is not None)

    def __getstate__(self) -> dict[str, object]:
        """A copy is not frozen."""
        return {**self.__dict__, "_step_weights": None, "_frozen": None}

    @property
    def flat(self) -> np.ndarray:
        """All parameters as one array (with zero gaps between them)."""
        return self._parameters.flat

    def parameters(self) -> dict[str, np.ndarray]:
        """Name -> array, views into `flat`."""
        return dict(self._parameters)

    def gradient_arrays(self) -> Arrays:
        """Arrays like the parameters, for gradients or moments: views into one flat buffer, not yet written."""
        return self._parameters.like()

    def forward(
        self,
        batch: Batch,
        step: int | None = None,
        *,
        smoothing: float = 0.0,
        guided: float = 0.0,
        coverage: float = 0.0,
        scheduled_sampling: float = 0.0,
    ) -> tuple[float, ModelCache]:
        """(loss, cache): the mean negative log-likelihood per target token, in nats.

        step: the training step that chooses the dropout masks, a function of (seed, step); None is no dropout.
        smoothing: label smoothing in [0, 1). guided, coverage: weights of two further losses on the attention weights
        that are added, see `loss`; guided compares them with batch.alignment.
        scheduled_sampling: the share of target tokens read as the model would write them, see the module of that name.
        Errors: IndexError for ids outside the vocabularies, with position; ValueError for an alignment that is missing.
        """
        with ops.products(self.bf16 and step is not None):
            return self._forward(batch, step, smoothing, guided, coverage, scheduled_sampling)

    def _forward(
        self,
        batch: Batch,
        step: int | None,
        smoothing: float,
        guided: float,
        coverage: float,
        scheduled_sampling: float,
    ) -> tuple[float, ModelCache]:
        c = self.config
        p, dropout = self._layers(), Dropout.of(c, self.seed, step, self.dtype)
        memory, final, encoder_cache = self._encode(p, batch.source, batch.source_lengths, dropout, batch.alignment)
        copies = self._copies(batch)
        read, targets, steps = self._target_rows(batch, copies)
        if scheduled_sampling:
            read = mixed_tokens(c, p, memory, final, read, steps, dropout, scheduled_sampling)
        readout, weights, decoder_cache = decoder.decoder_forward(c, p, memory, final, read, steps, dropout)
        mask = dropout.rows("readout", steps, c.embedding)
        readout = apply(readout, mask)
        output: OutputLoss | CopyLoss
        if copies is None:
            output = OutputLoss(p, readout, targets, smoothing, training=step is not None)
        else:
            output = CopyLoss(p, readout, weights, copies, steps, targets, smoothing)
        loss = output.sum / max(len(targets), 1)
        more, dweights = self._weights_loss(batch, weights, steps, guided, coverage)
        bf16 = self.bf16 and step is not None
        return loss + more, ModelCache(c, encoder_cache, decoder_cache, output, mask, dweights, bf16)

    def _weights_loss(
        self, batch: Batch, weights: np.ndarray, steps: np.ndarray, guided: float, coverage: float
    ) -> tuple[float, np.ndarray | None]:
        """What is lost on the attention weights (N, S), and its gradient; 0 and None where nothing is asked."""
        loss, dweights = 0.0, None
        if guided:
            if batch.alignment is None:
                raise ValueError("Seq2Seq.forward: guided needs batch.alignment, got none")
            inside = np.arange(batch.alignment.shape[1]) < steps[:, None]
            known = batch.alignment[:, :, : weights.shape[1]][inside].astype(weights.dtype, copy=False)
            more, dmore = guided_loss(weights, known)
            loss, dweights = guided * more, weights.dtype.type(guided) * dmore
        if coverage:
            more, dmore = coverage_loss(weights, steps)
            dmore = weights.dtype.type(coverage) * dmore
            loss, dweights = loss + coverage * more, dmore if dweights is None else dweights + dmore
        return loss, dweights

    def backward(self, cache: ModelCache) -> Arrays:
        """Gradients of the loss by parameter name. ValueError for a cache of another configuration."""
        if not isinstance(cache, ModelCache):
            raise TypeError(f"Seq2Seq.backward: cache is of type {type(cache).__name__}, expected that of forward")
        if cache.config != self.config:
            raise ValueError("Seq2Seq.backward: the cache comes from a model of another configuration")
        with ops.products(cache.bf16):
            return self._backward(cache)

    def _backward(self, cache: ModelCache) -> Arrays:
        c, p = self.config, self._layers()
        gradients, dreadout, dcopied = cache.output.backward()
        dweights = cache.dweights if dcopied is None else dcopied
        if cache.dweights is not None and dcopied is not None:
            dweights = cache.dweights + dcopied
        dreadout = apply(dreadout, cache.mask)
        dmemory, dfinal = decoder.decoder_backward(c, p, dreadout, dweights, cache.decoder, gradients)
        encoder_backward(c, p, dmemory, dfinal, cache.encoder, gradients)
        return tied_gradients(c, gradients, self._parameters)

    def force(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Teacher forcing: log-probabilities (B, T) of the given target tokens, and the weights (B, T, S).

        Row t belongs to target[:, t + 1]; rows from target_lengths - 1 on are 0.
        """
        rows, weights, *_ = self._force(batch)
        return rows, weights

    def force_copying(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """force of a model that copies, then p_gen (B, T), and how far each given token was copied (B, T).

        That is (1 - p_gen) sum weights / p, the copied share of its probability: 0 for a token the source does not
        hold, 1 for one that cannot be generated. Errors: ValueError for a model that does not copy.
        """
        if not self.config.copy:
            raise ValueError("Seq2Seq.force_copying: the model does not copy, expected config.copy")
        log_probabilities, weights, valid, copying = self._force(batch)
        assert copying is not None
        p_gen, copied = np.zeros(valid.shape, self.dtype), np.zeros(valid.shape, self.dtype)
        p_gen[valid], copied[valid] = copying.p_gen, 1 - copying.generated
        return log_probabilities, weights, p_gen, copied

    def _force(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, CopyCache | None]:
        """force, which rows (B, T) are given, and the mixture at them."""
        p, none = self._layers(), Dropout(0.0, self.seed, None, self.dtype)
        memory, final, _ = self._encode(p, batch.source, batch.source_lengths, none, batch.alignment)
        copies = self._copies(batch)
        read, targets, steps = self._target_rows(batch, copies)
        readout, weights, _ = decoder.decoder_forward(self.config, p, memory, final, read, steps, none, hard=True)
        copying = None
        if copies is None:
            _, loss = ops.cross_entropy_forward(readout, p["output.weight"], p["output.bias"], targets)
            log_p = loss.log_p
        else:
            copying = CopyLoss(p, readout, weights, copies, steps, targets, 0.0).cache
            log_p = copying.log_p
        B, T, S = batch.size, batch.target.shape[1] - 1, batch.source.shape[1]
        valid = np.arange(T) < steps[:, None]
        log_probabilities, padded = np.zeros((B, T), self.dtype), np.zeros((B, T, S), self.dtype)
        log_probabilities[valid] = log_p
        padded[valid, : weights.shape[1]] = weights
        return log_probabilities, padded, valid, copying

    def greedy(
        self,
        source: np.ndarray,
        source_lengths: np.ndarray,
        max_length: int = 50,
        alignment: np.ndarray | None = None,
        shortlist: np.ndarray | None = None,
        copies: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest token at every step: ids (B, T) int64, end symbol included, then pad; weights (B, T, S).

        T is the longest output, at most max_length. A sentence's result does not depend on the batch it is in.
        alignment (B, T, S): what the scoring "oracle" reads by. shortlist, copies: as start. Ids from target_size
        on are words that only the sentence's source has. NumericError where the model gives NaN.
        """
        if max_length < 1:
            raise ValueError(f"Seq2Seq.greedy: max_length is {max_length}, expected at least 1")
        lengths, S = np.asarray(source_lengths), np.shape(source)[1]
        state = self.start(source, lengths, alignment, shortlist, copies)
        if state.callback is not None or state.copier is not None:
            return self._padded(greedy_search(self, state, lengths, max_length), S)
        limit = np.full(len(lengths), max_length, np.int64)
        ids, weights, used = state.stepper.greedy(state.h, state.c, BEGIN, END, PAD, limit)
        if (ids < 0).any():
            step = int((ids < 0).any(0).argmax()) + 1
            raise NumericError(f"greedy: the model gave NaN at step {step}, expected log-probabilities")
        padded = np.zeros((len(ids), used, S), self.dtype)
        padded[:, :, : weights.shape[2]] = weights[:, :used]
        return ids[:, :used], padded

    def _padded(self, hypotheses: list[Hypothesis], S: int) -> tuple[np.ndarray, np.ndarray]:
        """ids (B, T), end symbol included, then pad; weights (B, T, S)."""
        T = max((len(h.ids) + h.finished for h in hypotheses), default=0)
        ids, weights = np.full((len(hypotheses), T), PAD, np.int64), np.zeros((len(hypotheses), T, S), self.dtype)
        for b, h in enumerate(hypotheses):
            n, own = h.weights.shape
            ids[b, :n], weights[b, :n, :own] = h.ids, h.weights
            if h.end_weights is not None:
                ids[b, n], weights[b, n, :own] = END, h.end_weights
        return ids, weights

    def start(
        self,
        source: np.ndarray,
        source_lengths: np.ndarray,
        alignment: np.ndarray | None = None,
        shortlist: np.ndarray | None = None,
        copies: np.ndarray | None = None,
    ) -> DecoderState:
        """Encode the sentences; the state before the first decoder step, one row a sentence.

        alignment (B, T, S): what the scoring "oracle" reads by; ValueError where it is missing. shortlist (B, V) bool:
        the tokens that a sentence may choose, for speed (`text.lexicon.Lexicon` makes it); they share the probability.
        copies (B, S): the source tokens as target ids, which a model that copies needs; it may copy any of them.
        """
        none = Dropout(0.0, self.seed, None, self.dtype)
        self._check_source(source)
        p, lengths = self._layers(), np.asarray(source_lengths)
        memory, final, _ = self._encode(p, source, lengths, none, alignment)
        if shortlist is not None:
            expected = (len(final), self.config.target_size)
            if not isinstance(shortlist, np.ndarray) or shortlist.dtype != np.bool_ or shortlist.shape != expected:
                raise ValueError(
                    f"Seq2Seq: shortlist is {getattr(shortlist, 'dtype', type(shortlist).__name__)} "
                    f"{np.shape(shortlist)}, expected bool (B, V) = {expected}"
                )
        given = check_copies(copies, source, lengths, self.config.target_size) if self.config.copy else None
        return stepping.start(self.config, p, memory, final, self._step_weights, shortlist, given)

    def advance(
        self, state: DecoderState, tokens: np.ndarray, sentence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, DecoderState]:
        """One step: log-probabilities (N, V), weights (N, S) and the next state; row i reads sentence[i].

        A model that copies has further columns for the words that only the sources hold, see `copying`.

        The parameters must not change between the steps of a search.
        """
        return stepping.advance(state, tokens, sentence)

    def advance_top(
        self, state: DecoderState, tokens: np.ndarray, sentence: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, DecoderState]:
        """advance with the min(k, V) largest log-probabilities of each row and their ids (N, k), largest first."""
        return stepping.advance_top(state, tokens, sentence, k)

    def beam(self, state: DecoderState, beam: int, nbest: int, limits: np.ndarray, norm: np.ndarray) -> Any:
        """Plain beam search from `start` on in one call, see `steps.beam`; None where it has to go step by step."""
        return stepping.beam(state, beam, nbest, limits, norm)

    def _encode(
        self, p: Arrays, source: np.ndarray, lengths: np.ndarray, dropout: Dropout, alignment: np.ndarray | None
    ) -> tuple[decoder.Memory, np.ndarray, EncoderCache]:
        self._check_source(source)
        rows, final, cache = encoder_forward(self.config, p, source, lengths, dropout)
        return decoder.make_keys(self.config, p, rows, lengths, alignment), final, cache

    def _check_source(self, source: np.ndarray) -> None:
        c = self.config
        if not isinstance(source, np.ndarray):
            raise TypeError(f"Seq2Seq: source is of type {type(source).__name__}, expected an array")
        if c.source == "tokens":
            if source.dtype != np.int64:
                raise TypeError(f"Seq2Seq: source has dtype {source.dtype}, expected int64 token ids")
            if source.ndim != 2:
                raise ValueError(f"Seq2Seq: source has shape {source.shape}, expected (B, S)")
        else:
            if source.dtype != self.dtype:
                raise TypeError(f"Seq2Seq: source has dtype {source.dtype}, expected {self.dtype} feature vectors")
            if source.ndim != 3 or source.shape[2] != c.source_size:
                raise ValueError(f"Seq2Seq: source has shape {source.shape}, expected (B, S, F={c.source_size})")

    def _copies(self, batch: Batch) -> np.ndarray | None:
        """batch.copies, checked, where the model copies."""
        if not self.config.copy:
            return None
        return check_copies(batch.copies, batch.source, batch.source_lengths, self.config.target_size)

    def _target_rows(self, batch: Batch, copies: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens read (N,), tokens predicted (N,), decoder steps (B,))."""
        steps = batch.target_lengths - 1
        valid = np.arange(batch.target.shape[1] - 1) < steps[:, None]
        read, predicted = batch.target[:, :-1][valid], batch.target[:, 1:][valid]
        size = self.config.target_size
        if max(read.max(initial=0), predicted.max(initial=0)) >= size:
            inside = np.arange(batch.target.shape[1]) < batch.target_lengths[:, None]
            if copies is not None:  # a word of the source may be read and predicted
                inside &= ~(batch.target[:, :, None] == copies[:, None]).any(2)
                read = np.where(read < size, read, UNKNOWN)
            check_ids(np.where(inside, batch.target, 0), size, "target", "Seq2Seq")
        return read, predicted, steps

    def summary(self) -> str:
        """One line a group of parameters: name, shapes, count."""
        lines = [f"{name:32s} {array.shape!s:>16s} {array.size:>12,d}" for name, array in self._parameters.items()]
        total = sum(array.size for array in self._parameters.values())
        return "\n".join([*lines, f"{'total':32s} {'':>16s} {total:>12,d}"])
