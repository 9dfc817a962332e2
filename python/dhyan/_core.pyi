"""The C++ core, as the modules of `dhyan.ops` see it, where the docstrings are.

Arrays are float32 or float64, one dtype a call; ids, lengths and ranges are int64; masks are bool.
"""

from typing import Any, final

import numpy.typing as npt

_Array = npt.NDArray[Any]

# Machine
def show_config() -> dict[str, Any]: ...
def set_isa(isa: str) -> None: ...
def has_bf16_products() -> bool: ...
def set_bf16_products(on: bool) -> bool: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def empty(n: int, single: bool) -> _Array: ...

# Attention, in CPU memory or on the device where the first array lies; stream is looked at there only
def score_forward(q: _Array, k: _Array, w: _Array | None, term: str, scale: float, stream: int | None) -> _Array: ...
def score_backward(
    dscores: _Array, q: _Array, k: _Array, w: _Array | None, term: str, scale: float, stream: int | None
) -> tuple[_Array, _Array, _Array | None]: ...
def softmax_forward(
    scores: _Array, begin: _Array | None, end: _Array | None, mask: _Array | None, stream: int | None
) -> _Array: ...
def softmax_backward(dweights: _Array, weights: _Array, stream: int | None) -> _Array: ...
def sparsemax_forward(scores: _Array, begin: _Array | None, end: _Array | None, mask: _Array | None) -> _Array: ...
def sparsemax_backward(dweights: _Array, weights: _Array) -> _Array: ...
def monotonic_forward(
    scores: _Array,
    previous: _Array | None,
    hard: bool,
    begin: _Array | None,
    end: _Array | None,
    mask: _Array | None,
) -> _Array: ...
def monotonic_backward(
    dweights: _Array,
    scores: _Array,
    weights: _Array,
    previous: _Array | None,
    begin: _Array | None,
    end: _Array | None,
    mask: _Array | None,
) -> tuple[_Array, _Array | None]: ...
def context_forward(weights: _Array, v: _Array, stream: int | None) -> _Array: ...
def context_backward(dcontext: _Array, weights: _Array, v: _Array, stream: int | None) -> tuple[_Array, _Array]: ...
def attention_forward(
    q: _Array,
    k: _Array,
    v: _Array,
    w: _Array | None,
    term: str,
    scale: float,
    begin: _Array | None,
    end: _Array | None,
    mask: _Array | None,
    need_weights: bool,
    stream: int | None,
) -> tuple[_Array, _Array | None]: ...
def attention_backward(
    dcontext: _Array,
    dweights: _Array | None,
    q: _Array,
    k: _Array,
    v: _Array,
    w: _Array | None,
    term: str,
    scale: float,
    begin: _Array | None,
    end: _Array | None,
    mask: _Array | None,
    weights: _Array | None,
    stream: int | None,
) -> tuple[_Array, _Array, _Array, _Array | None]: ...
def exp_array(x: _Array) -> _Array: ...
def tanh_array(x: _Array) -> _Array: ...

# CUDA arrays; stream is an integer handle or None
@final
class DeviceArray:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # always a TypeError: cuda_upload and the ops make them
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> int: ...
    def reshape(self, shape: list[int]) -> DeviceArray: ...
    def download(self, stream: int | None) -> _Array: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

def on_device(x: object) -> bool: ...
def cuda_import(x: Any, stream: int | None, op: str, name: str) -> DeviceArray: ...
def cuda_upload(array: _Array, dtype: str, device: int, stream: int | None) -> DeviceArray: ...
def cuda_poison(on: bool) -> None: ...
def cuda_pool_use(device: int, reset: bool) -> tuple[int, int]: ...
def cuda_trim(device: int) -> None: ...
def cuda_mark(device: int, stream: int | None) -> int: ...
def cuda_between(first: int, second: int) -> float: ...
def cuda_unit_rows(x: DeviceArray, stream: int | None) -> DeviceArray: ...

# Layers
def linear_forward(x: _Array, w: _Array, b: _Array | None) -> _Array: ...
def linear_backward(
    dy: _Array, x: _Array, w: _Array, dw: _Array, db: _Array | None, add_to: _Array | None
) -> _Array: ...
def embedding_forward(table: _Array, ids: _Array) -> _Array: ...
def embedding_backward(dout: _Array, ids: _Array, dtable: _Array) -> None: ...

@final
class CellArrays:  # a cell's parameters, or the arrays their gradients are written to
    def __init__(
        self,
        *,
        weight_ih: _Array,
        weight_hh: _Array,
        bias_ih: _Array,
        bias_hh: _Array,
        gain_ih: _Array | None = None,
        gain_hh: _Array | None = None,
    ) -> None: ...
    @property
    def weight_ih(self) -> _Array: ...
    @property
    def weight_hh(self) -> _Array: ...
    @property
    def bias_ih(self) -> _Array: ...
    @property
    def bias_hh(self) -> _Array: ...
    @property
    def gain_ih(self) -> _Array | None: ...
    @property
    def gain_hh(self) -> _Array | None: ...

def recurrent_forward(
    cell: str,
    reverse: bool,
    x: _Array,
    index: _Array | None,
    lengths: _Array,
    parameters: CellArrays,
    h0: _Array | None,
    c0: _Array | None,
    state_mask: _Array | None,
) -> tuple[_Array, _Array, _Array | None, Cache]: ...
def recurrent_backward(
    cache: Cache,
    x: _Array,
    index: _Array | None,
    parameters: CellArrays,
    h0: _Array | None,
    c0: _Array | None,
    state_mask: _Array | None,
    doutput: _Array,
    dfinal_h: _Array | None,
    dfinal_c: _Array | None,
    gradients: CellArrays,
    wants_dx: bool,
) -> tuple[_Array | None, _Array | None, _Array | None]: ...
def bidirectional_forward(
    cell: str,
    x: _Array,
    index: _Array | None,
    lengths: _Array,
    parameters: tuple[CellArrays, CellArrays],
    state_masks: tuple[_Array | None, _Array | None],
) -> tuple[_Array, tuple[_Array, _Array], Cache]: ...
def bidirectional_backward(
    cache: Cache,
    x: _Array,
    index: _Array | None,
    parameters: tuple[CellArrays, CellArrays],
    state_masks: tuple[_Array | None, _Array | None],
    doutput: _Array,
    dfinal_h: tuple[_Array | None, _Array | None],
    gradients: tuple[CellArrays, CellArrays],
    wants_dx: bool,
) -> _Array | None: ...
def cross_entropy_forward(
    r: _Array, w: _Array, b: _Array, targets: _Array, smoothing: float, keep_logits: bool
) -> tuple[float, _Array, _Array, _Array | None]: ...
def cross_entropy_backward(
    scale: float,
    r: _Array,
    w: _Array,
    b: _Array,
    targets: _Array,
    smoothing: float,
    log_sums: _Array,
    logits: _Array | None,
    shares: _Array | None,
    dw: _Array,
    db: _Array,
) -> _Array: ...
def cross_entropy_both(
    scale: float, r: _Array, w: _Array, b: _Array, targets: _Array, smoothing: float, dw: _Array, db: _Array
) -> tuple[float, _Array]: ...
def adam_step(
    p: _Array,
    g: _Array,
    m: _Array,
    v: _Array,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    clip: float,
) -> float: ...
def dropout_mask(n: int, rate: float, key: int, single: bool) -> _Array: ...

# Decoder
@final
class Cache:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # always a TypeError: forward functions make them

@final
class DecoderParameters:
    def __init__(
        self,
        *,
        cell: str,
        order: str,
        cells: list[CellArrays],
        readout: _Array,
        readout_bias: _Array,
        term: str,  # of attention_forward, or a rule: last, mean, given, read
        query: _Array | None = None,
        w: _Array | None = None,
        scale: float = 1.0,
        normalize_query: bool = False,
        sparsemax: bool = False,
        radius: int = -1,
        input_feeding: bool = False,
        residual: bool = False,
    ) -> None: ...

@final
class Memory:  # values (N_s, D), keys (N_s, U), lengths (B,), alignment (B, 1 or T, S)
    def __init__(self, *, values: _Array, keys: _Array | None, lengths: _Array, alignment: _Array | None) -> None: ...

@final
class DecoderMasks:  # between layers (L - 1, N, H), of the states (L, B, H)
    def __init__(self, *, between: _Array | None = None, state: _Array | None = None) -> None: ...

@final
class DecoderGradients:
    def __init__(
        self,
        *,
        cells: list[CellArrays],
        query: _Array | None,
        w: _Array | None,
        readout: _Array,
        readout_bias: _Array,
    ) -> None: ...

def decoder_forward(
    parameters: DecoderParameters,
    memory: Memory,
    y: _Array,
    index: _Array | None,
    steps: _Array,
    h0: _Array,
    c0: _Array | None,
    masks: DecoderMasks,
    reader: Any,  # read(sentence, position, state) -> context, weights
) -> tuple[_Array, _Array, Cache]: ...
def decoder_backward(
    cache: Cache,
    parameters: DecoderParameters,
    memory: Memory,
    y: _Array,
    index: _Array | None,
    h0: _Array,
    c0: _Array | None,
    masks: DecoderMasks,
    dreadout: _Array,
    dweights: _Array | None,
    gradients: DecoderGradients,
    reader: Any,  # read_backward(t, dcontext, dweights) -> dstate
) -> tuple[_Array, _Array, _Array | None, _Array, _Array, float]: ...

class StepWeights:
    def __init__(
        self, parameters: DecoderParameters, table: _Array, output: _Array, output_bias: _Array, shrunk: bool
    ) -> None: ...

class Stepper:
    def __init__(
        self,
        weights: StepWeights,
        memory: Memory,
        shortlist: _Array | None = None,
        allowed: _Array | None = None,
    ) -> None: ...
    def step(
        self,
        token: _Array,
        sentence: _Array,
        position: _Array,
        h: _Array,
        c: _Array | None,
        readout: _Array,
        reader: Any = None,
        top: int = -1,
    ) -> tuple[Any, ...]: ...
    def greedy(
        self, h0: _Array, c0: _Array | None, begin: int, end: int, pad: int, limit: _Array
    ) -> tuple[_Array, _Array, int]: ...
    def beam(
        self,
        h0: _Array,
        c0: _Array | None,
        begin: int,
        end: int,
        beam: int,
        nbest: int,
        limit: _Array,
        norm: _Array,
    ) -> tuple[_Array, _Array, _Array, _Array, _Array, int]: ...
