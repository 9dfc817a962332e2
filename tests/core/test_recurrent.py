"""Embedding, linear and recurrent layers: values, gradients, padding, bits."""

from __future__ import annotations

import dhyan
import numpy as np
import pytest
from dhyan import ops
from spec import model as reference

CELLS = ["rnn", "lstm", "gru"]
# B, S, I, H: every size of reference.SIZES on every axis, without the full product
SHAPES = [(1, 1, 1, 1), (2, 5, 7, 13), (5, 7, 2, 5), (13, 2, 5, 40), (7, 13, 40, 2), (3, 5, 13, 100), (2, 40, 100, 7)]
SMALL = SHAPES[:3]


def ragged(size: int, steps: int) -> np.ndarray:
    """Lengths that include full, empty and single sentences as far as `size` allows."""
    return np.array([(steps, 1, 0, steps - 1, 2)[i % 5] for i in range(size)], dtype=np.int64).clip(0, steps)


def layer(cell: str, inputs: int, hidden: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    gates = reference.GATES[cell] * hidden
    shapes = {"weight_ih": (inputs, gates), "weight_hh": (hidden, gates), "bias_ih": (gates,), "bias_hh": (gates,)}
    return {name: rng.standard_normal(shape) / shape[0] ** 0.5 for name, shape in shapes.items()}


def case(
    cell: str, shape: tuple[int, int, int, int], seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """x, h0 (and c0), parameters, lengths in float64."""
    b, s, i, h = shape
    rng = np.random.default_rng(seed)
    inputs = {"x": rng.standard_normal((b, s, i)), "h0": rng.standard_normal((b, h))}
    if cell == "lstm":
        inputs["c0"] = rng.standard_normal((b, h))
    return inputs, layer(cell, i, h, rng), ragged(b, s)


def cast(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {name: array.astype(dtype) for name, array in arrays.items()}


def run(cell, inputs, parameters, lengths, *, reverse=False):  # type: ignore[no-untyped-def]
    states = {name: value for name, value in inputs.items() if name != "x"}
    return ops.recurrent_forward(inputs["x"], lengths, parameters, cell=cell, reverse=reverse, **states)


def run_backward(cell, douts, cache):  # type: ignore[no-untyped-def]
    """All gradients under the names of `case`, parameters included."""
    doutput, dh, dc = douts
    dx, gradients, dh0, dc0 = ops.recurrent_backward(doutput, cache, dfinal_h=dh, dfinal_c=dc)
    return {"x": dx, "h0": dh0, **({"c0": dc0} if cell == "lstm" else {}), **gradients}


def random_douts(cell, shape, rng):  # type: ignore[no-untyped-def]
    b, s, _, h = shape
    dc = rng.standard_normal((b, h)) if cell == "lstm" else None
    return rng.standard_normal((b, s, h)), rng.standard_normal((b, h)), dc


# ------------------------------------------------------------------------------------------------ embedding


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", reference.SIZES)
def test_embedding(isa: str, width: int, dtype: str) -> None:
    rng = np.random.default_rng(width)
    table = rng.standard_normal((7, width)).astype(dtype)
    ids = rng.integers(0, 7, (5, 13))
    out = ops.embedding_forward(table, ids)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, table[ids])
    dout = rng.standard_normal(out.shape).astype(dtype)
    dtable = ops.embedding_backward(dout, ids, 7)
    assert dtable.dtype == dtype
    expected = reference.embedding_gradient(dout.astype(np.float64), ids, 7)
    reference.assert_rounded(dtable, expected, terms=ids.size // 7)


def test_embedding_shapes_and_unused_rows() -> None:
    table = np.arange(12.0).reshape(4, 3)
    for ids in (np.array(2), np.array([3, 0]), np.zeros((2, 0), np.int64), np.array([[0, 1, 2, 3]]).T[::-1]):
        np.testing.assert_array_equal(ops.embedding_forward(table, ids), table[ids])
    dtable = ops.embedding_backward(np.ones((2, 3)), np.array([1, 1]), 4)
    np.testing.assert_array_equal(dtable, [[0] * 3, [2] * 3, [0] * 3, [0] * 3])


@pytest.mark.parametrize("bad", [4, -1, 2**40])
def test_embedding_names_the_position_of_a_bad_id(bad: int) -> None:
    ids = np.array([[0, 1], [bad, 2]])
    with pytest.raises(IndexError, match=rf"{bad}.*\(1, 0\)|\(1, 0\).*{bad}"):
        ops.embedding_forward(np.zeros((4, 3)), ids)
    with pytest.raises(IndexError, match=rf"{bad}.*\(1, 0\)|\(1, 0\).*{bad}"):
        ops.embedding_backward(np.zeros((2, 2, 3)), ids, 4)


@pytest.mark.parametrize("ids", [np.array([0.0]), np.array([0], np.int32), [0], np.array([True])])
def test_embedding_refuses_other_id_types(ids: object) -> None:
    with pytest.raises(TypeError, match="ids"):
        ops.embedding_forward(np.zeros((4, 3)), ids)


# ------------------------------------------------------------------------------------------------ linear


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", reference.SIZES)
@pytest.mark.parametrize("inputs, outputs", [(1, 1), (2, 13), (5, 7), (7, 100), (13, 5), (40, 40), (100, 2)])
def test_linear(isa: str, rows: int, inputs: int, outputs: int, dtype: str) -> None:
    rng = np.random.default_rng(rows)
    x, w, b, dy = (
        rng.standard_normal(s).astype(dtype) for s in [(rows, inputs), (inputs, outputs), outputs, (rows, outputs)]
    )
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    reference.assert_rounded(ops.linear_forward(x, w, b), wide[0] @ wide[1] + wide[2], terms=inputs + 1)
    reference.assert_rounded(ops.linear_forward(x, w), wide[0] @ wide[1], terms=inputs)
    dx, dw, db = ops.linear_backward(dy, x, w)
    reference.assert_rounded(dx, wide[3] @ wide[1].T, terms=outputs)
    reference.assert_rounded(dw, wide[0].T @ wide[3], terms=rows)
    reference.assert_rounded(db, wide[3].sum(0), terms=rows)


def test_linear_keeps_leading_axes() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 4)), rng.standard_normal((2, 3, 4))
    flat = ops.linear_forward(x.reshape(6, 5), w)
    np.testing.assert_array_equal(ops.linear_forward(x, w), flat.reshape(2, 3, 4))
    dx, dw, db = ops.linear_backward(dy, x, w)
    expected = ops.linear_backward(dy.reshape(6, 4), x.reshape(6, 5), w)
    for actual, same in zip((dx.reshape(6, 5), dw, db), expected, strict=True):
        np.testing.assert_array_equal(actual, same)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_row_does_not_depend_on_its_batch(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in [(100, 133), (133, 77), 77])
    together = ops.linear_forward(x, w, b)
    for rows in (slice(0, 1), slice(99, 100), slice(3, 10), slice(41, 64)):
        np.testing.assert_array_equal(ops.linear_forward(x[rows], w, b), together[rows])


def test_linear_gradient_is_added_to_what_is_there() -> None:
    rng = np.random.default_rng(0)
    x, w, dy, there = (rng.standard_normal(s) for s in [(6, 5), (5, 4), (6, 4), (6, 5)])
    dx, dw, db = ops.linear_backward(dy, x, w)
    to = there.copy()
    added, *same = ops.linear_backward(dy, x, w, add_to=to)
    assert added.base is to or added is to
    np.testing.assert_allclose(added, there + dx, rtol=1e-15, atol=1e-15)  # one rounding apart at most
    for a, b in zip(same, (dw, db), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"linear_backward.*dx has shape \(5, 5\), expected \(M=6, I=5\)"):
        ops.linear_backward(dy, x, w, add_to=there[:5].copy())


@pytest.mark.parametrize("shape, outputs", [((3, 0), 4), ((2, 3, 0), 4), ((0, 5), 4), ((2, 0, 5), 4), ((2, 3, 5), 0)])
def test_linear_of_nothing(shape: tuple[int, ...], outputs: int) -> None:
    x, w, b = np.ones(shape), np.ones((shape[-1], outputs)), np.arange(outputs, dtype=np.float64)
    y = ops.linear_forward(x, w, b)
    np.testing.assert_array_equal(y, np.broadcast_to(b + shape[-1], (*shape[:-1], outputs)))
    dx, dw, db = ops.linear_backward(np.ones_like(y), x, w)
    rows = y[..., 0].size if outputs else 6
    np.testing.assert_array_equal(dx, np.full(shape, outputs))
    np.testing.assert_array_equal(dw, np.full(w.shape, rows))
    np.testing.assert_array_equal(db, np.full(outputs, rows))


def test_linear_reads_any_stride() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((14, 10))[::2, ::-2], rng.standard_normal((4, 5)).T
    np.testing.assert_array_equal(ops.linear_forward(x, w), ops.linear_forward(x.copy(), w.copy()))


def test_linear_names_the_shapes() -> None:
    x, w = np.zeros((2, 3)), np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"linear_forward.*\(4, 3\)"):
        ops.linear_forward(x, w)
    with pytest.raises(ValueError, match="linear_forward"):
        ops.linear_forward(x, w.T, np.zeros(3))
    with pytest.raises(TypeError, match="float32"):
        ops.linear_forward(x.astype(np.float32), w.T)


# ------------------------------------------------------------------------------------------------ recurrent layers


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_a_mask_of_the_state(isa: str, shape: tuple[int, int, int, int], cell: str, reverse: bool) -> None:
    """What h W_hh reads is masked at every step, what is handed on is not."""
    inputs, parameters, lengths = case(cell, shape)
    rng = np.random.default_rng(1)
    mask = 2.0 * (rng.random((shape[0], shape[3])) < 0.5)

    def reference_run(a: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        p = {name: a[name] for name in parameters}
        return reference.recurrent(
            a["x"], lengths, p, cell=cell, reverse=reverse, h0=a["h0"], c0=a.get("c0"), state_mask=mask
        )

    states = {name: value for name, value in inputs.items() if name != "x"}
    output, final_h, final_c, cache = ops.recurrent_forward(
        inputs["x"], lengths, parameters, cell=cell, reverse=reverse, state_mask=mask, **states
    )
    for actual, value in zip((output, final_h, final_c), reference_run(inputs | parameters), strict=True):
        if value is not None:
            np.testing.assert_allclose(actual, value, atol=1e-13)
    doutput, dh, dc = douts = random_douts(cell, shape, rng)

    def projected(a: dict[str, np.ndarray]) -> np.ndarray:
        out, h, c = reference_run(a)
        total = (out * doutput).sum((-3, -2, -1)) + (h * dh).sum((-2, -1))
        return total if dc is None else total + (c * dc).sum((-2, -1))

    reference.assert_gradients(projected, inputs | parameters, run_backward(cell, douts, cache), rng)
    ones, _, _, _ = ops.recurrent_forward(
        inputs["x"], lengths, parameters, cell=cell, reverse=reverse, state_mask=np.ones_like(mask), **states
    )
    np.testing.assert_array_equal(ones, run(cell, inputs, parameters, lengths, reverse=reverse)[0])
    with pytest.raises(ValueError, match=r"recurrent_forward: state_mask has shape"):
        ops.recurrent_forward(inputs["x"], lengths, parameters, cell=cell, state_mask=mask[:, :-1].copy())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_recurrent_values_and_gradients(isa: str, shape: tuple[int, int, int, int], cell: str, reverse: bool) -> None:
    inputs, parameters, lengths = case(cell, shape)
    rng = np.random.default_rng(1)

    def reference_run(a: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        p = {name: a[name] for name in parameters}
        return reference.recurrent(a["x"], lengths, p, cell=cell, reverse=reverse, h0=a["h0"], c0=a.get("c0"))

    output, final_h, final_c, cache = run(cell, inputs, parameters, lengths, reverse=reverse)
    expected = reference_run(inputs | parameters)
    for actual, value in zip((output, final_h, final_c), expected, strict=True):
        if value is None:
            assert actual is None
        else:
            np.testing.assert_allclose(actual, value, atol=1e-13)

    doutput, dh, dc = douts = random_douts(cell, shape, rng)

    def projected(a: dict[str, np.ndarray]) -> np.ndarray:
        out, h, c = reference_run(a)
        total = (out * doutput).sum((-3, -2, -1)) + (h * dh).sum((-2, -1))
        return total if dc is None else total + (c * dc).sum((-2, -1))

    gradients = run_backward(cell, douts, cache)
    reference.assert_gradients(projected, inputs | parameters, gradients, rng)

    # float32: the same numbers up to rounding, which every step of the recurrence hands on to the next
    narrow = cast(inputs, "float32"), cast(parameters, "float32")
    wide = cast(narrow[0], "float64"), cast(narrow[1], "float64")
    exact = run(cell, *wide, lengths, reverse=reverse)
    rounded = run(cell, *narrow, lengths, reverse=reverse)
    terms = (shape[2] + shape[3] + 2) * shape[1]
    for actual, value in zip(rounded[:3], exact[:3], strict=True):
        if value is not None:
            assert actual.dtype == np.float32
            reference.assert_rounded(actual, value, terms)
    douts = tuple(None if d is None else d.astype(np.float32) for d in douts)
    exact_gradients = run_backward(cell, tuple(None if d is None else d.astype(np.float64) for d in douts), exact[3])
    for name, gradient in run_backward(cell, douts, rounded[3]).items():
        assert gradient.dtype == np.float32
        reference.assert_rounded(gradient, exact_gradients[name], terms * reference.GATES[cell] + shape[0])


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_defaults_are_zero(cell: str) -> None:
    """No initial state means zeros; no gradient of a final state means zeros."""
    inputs, parameters, lengths = case(cell, (3, 4, 5, 6))
    zeros = {name: np.zeros_like(value) if name != "x" else value for name, value in inputs.items()}
    given = run(cell, zeros, parameters, lengths)
    default = ops.recurrent_forward(inputs["x"], lengths, parameters, cell=cell)
    doutput = np.random.default_rng(0).standard_normal((3, 4, 6))
    nothing = np.zeros((3, 6))
    with_zeros = run_backward(cell, (doutput, nothing, nothing if cell == "lstm" else None), given[3])
    dx, gradients, _, _ = ops.recurrent_backward(doutput, default[3])
    np.testing.assert_array_equal(default[0], given[0])
    np.testing.assert_array_equal(dx, with_zeros["x"])
    for name in parameters:
        np.testing.assert_array_equal(gradients[name], with_zeros[name])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_padding_cannot_be_seen(isa: str, cell: str, reverse: bool) -> None:
    """NaN, Inf and huge numbers past the end change no bit of output or gradient, and get gradient 0."""
    shape = (5, 6, 3, 7)
    inputs, parameters, lengths = case(cell, shape)
    doutput, dh, dc = random_douts(cell, shape, np.random.default_rng(2))
    past = np.arange(6) >= lengths[:, None]
    clean = run(cell, inputs, parameters, lengths, reverse=reverse)
    expected = run_backward(cell, (doutput, dh, dc), clean[3])
    assert not clean[0][past].any()
    for poison in (np.nan, np.inf, 3e38):
        poisoned = inputs | {"x": np.where(past[..., None], poison, inputs["x"])}
        got = run(cell, poisoned, parameters, lengths, reverse=reverse)
        np.testing.assert_array_equal(got[0], clean[0])
        np.testing.assert_array_equal(got[1], clean[1])
        gradients = run_backward(cell, (np.where(past[..., None], poison, doutput), dh, dc), got[3])
        for name in expected:
            np.testing.assert_array_equal(gradients[name], expected[name], err_msg=name)
        assert not gradients["x"][past].any()


def test_distinct_ids() -> None:
    kept, index = ops.distinct(np.array([5, 1, 5, 7, 1, 1, 5, 7]), 9) or pytest.fail("repeated ids")
    assert kept.tolist() == [1, 5, 7] and index.tolist() == [1, 0, 1, 2, 0, 0, 1, 2]
    few = np.arange(16)
    assert ops.distinct(few, 16) is None and ops.distinct(np.append(few, 3), 16) is None  # one of 17
    assert ops.distinct(np.append(few[:15], 3), 16) is not None  # one of 16
    assert ops.distinct(np.zeros(0, np.int64), 4) is None
    for bad in (-1, 4):
        assert ops.distinct(np.array([0, 0, 0, 0, bad]), 4) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gains", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_tokens_share(isa: str, cell: str, gains: bool, dtype: str) -> None:
    """Forward gives the bits of x[index], backward the sums over the tokens of each row; a row nobody reads gets 0."""
    B, S, E, H = 5, 9, 11, 13
    rng = np.random.default_rng(0)
    parameters = layer(cell, E, H, rng)
    parameters = cast(with_gains(parameters) if gains else parameters, dtype)
    lengths = ragged(B, S)
    N = int(lengths.sum())
    table, index = rng.standard_normal((6, E)).astype(dtype), rng.integers(0, 5, N)
    dout, dlast = rng.standard_normal((N, 2 * H)).astype(dtype), rng.standard_normal((B, H)).astype(dtype)

    def both(x: np.ndarray, index: np.ndarray | None) -> list[np.ndarray]:
        out, final, cache = ops.bidirectional_rows_forward(x, lengths, (parameters,) * 2, cell=cell, index=index)
        gradients = [{n: np.empty_like(p) for n, p in parameters.items()} for _ in range(2)]
        dx = ops.bidirectional_rows_backward(dout, cache, (None, dlast), gradients=(gradients[0], gradients[1]))
        assert dx is not None
        alone, last, _, one = ops.recurrent_rows_forward(x, lengths, parameters, cell=cell, index=index)
        dalone, dp, *_ = ops.recurrent_rows_backward(np.ascontiguousarray(dout[:, :H]), one, dlast)
        assert dalone is not None
        return [out, *final, alone, last, dx, dalone, *(g[n] for g in (*gradients, dp) for n in sorted(parameters))]

    shared, expanded = both(table, index), both(table[index], None)
    for a, b in zip(shared[:5], expanded[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    sums = [np.zeros_like(table, np.float64) for _ in range(2)]
    for total, rows in zip(sums, expanded[5:7], strict=True):
        np.add.at(total, index, rows)
    assert not shared[5][5].any()
    eps = np.finfo(dtype).eps
    for a, b in zip(shared[5:], [*sums, *expanded[7:]], strict=True):
        # Two orders of the same sums of at most N terms.
        np.testing.assert_allclose(a, b, rtol=0, atol=4 * eps * max(np.abs(b).max(), 1) * np.sqrt(N))


def test_rows_that_tokens_share_are_checked() -> None:
    parameters = layer("gru", 3, 4, np.random.default_rng(0))
    lengths, x = np.array([2, 1]), np.zeros((2, 3))

    def call(index: object, rows: np.ndarray = x) -> object:
        return ops.recurrent_rows_forward(rows, lengths, parameters, cell="gru", index=index)  # type: ignore[arg-type]

    call(np.array([1, 0, 1]))
    with pytest.raises(ValueError, match=r"x index has shape \(2,\), expected \(N=3,\)"):
        call(np.array([1, 0]))
    for bad in (-1, 2):
        with pytest.raises(IndexError, match=rf"x index\[1\] is {bad}, expected a row < 2"):
            call(np.array([1, bad, 0]))
    with pytest.raises(TypeError, match="index"):
        call(np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match=r"weight_ih has shape \(3, 12\), expected \(I=2"):
        call(np.array([1, 0, 1]), np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_sentence_does_not_depend_on_its_batch(isa: str, cell: str, dtype: str) -> None:
    shape = (13, 7, 19, 21)
    inputs, parameters, lengths = case(cell, shape)
    inputs, parameters = cast(inputs, dtype), cast(parameters, dtype)
    douts = tuple(None if d is None else d.astype(dtype) for d in random_douts(cell, shape, np.random.default_rng(2)))
    for reverse in (False, True):
        together = run(cell, inputs, parameters, lengths, reverse=reverse)
        gradients = run_backward(cell, douts, together[3])
        for i in range(13):
            one = {name: value[i : i + 1] for name, value in inputs.items()}
            one["x"] = one["x"][:, : max(lengths[i], 1)]  # not padded as far either
            steps = one["x"].shape[1]
            alone = run(cell, one, parameters, lengths[i : i + 1], reverse=reverse)
            np.testing.assert_array_equal(alone[0][0], together[0][i, :steps])
            np.testing.assert_array_equal(alone[1][0], together[1][i])
            dout = tuple(None if d is None else d[i : i + 1] for d in douts)
            own = run_backward(cell, (dout[0][:, :steps], *dout[1:]), alone[3])
            for name, value in inputs.items():
                rows = slice(None) if name != "x" else slice(steps)
                np.testing.assert_array_equal(own[name][0], gradients[name][i][rows], err_msg=f"{name} {value.shape}")


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_bits_do_not_depend_on_threads(isa: str, cell: str) -> None:
    shape = (37, 9, 19, 21)
    inputs, parameters, lengths = case(cell, shape)
    inputs, parameters = cast(inputs, "float32"), cast(parameters, "float32")
    douts = tuple(
        None if d is None else d.astype(np.float32) for d in random_douts(cell, shape, np.random.default_rng(2))
    )
    before, results = dhyan.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4, 7, 8, 16):
            dhyan.set_num_threads(threads)
            forward = run(cell, inputs, parameters, lengths)
            results.append([forward[0], forward[1], *run_backward(cell, douts, forward[3]).values()])
    finally:
        dhyan.set_num_threads(before)
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_cache_may_be_used_twice(cell: str) -> None:
    shape = (3, 4, 5, 6)
    inputs, parameters, lengths = case(cell, shape)
    cache = run(cell, inputs, parameters, lengths)[3]
    douts = random_douts(cell, shape, np.random.default_rng(0))
    first, second = run_backward(cell, douts, cache), run_backward(cell, douts, cache)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2)], ids=str)
def test_recurrent_empty_batch_or_sequence(cell: str, shape: tuple[int, int, int, int]) -> None:
    inputs, parameters, lengths = case(cell, shape)
    output, final_h, _, cache = run(cell, inputs, parameters, lengths)
    assert output.shape == (shape[0], shape[1], shape[3])
    np.testing.assert_array_equal(final_h, inputs["h0"])
    gradients = run_backward(cell, random_douts(cell, shape, np.random.default_rng(0)), cache)
    assert not any(gradients[name].any() for name in parameters)


def test_recurrent_long_saturated_sequences_stay_finite() -> None:
    for cell in CELLS:
        inputs, parameters, _ = case(cell, (2, 200, 3, 4))
        inputs["x"] *= 1e4
        lengths = np.array([200, 150])
        doutput = np.ones((2, 200, 4), np.float32)
        output, _, _, cache = run(cell, cast(inputs, "float32"), cast(parameters, "float32"), lengths)
        dx, gradients, _, _ = ops.recurrent_backward(doutput, cache)
        assert np.isfinite(output).all() and np.isfinite(dx).all()
        assert all(np.isfinite(g).all() for g in gradients.values())


BAD = {
    "unknown cell": (dict(cell="lstn"), ValueError, "lstm"),
    "too long": (dict(lengths=np.array([3, 5])), ValueError, "lengths"),
    "negative": (dict(lengths=np.array([-1, 2])), ValueError, "lengths"),
    "wrong count": (dict(lengths=np.array([2])), ValueError, "lengths"),
    "float lengths": (dict(lengths=np.array([1.0, 2.0])), TypeError, "lengths"),
    "rank": (dict(x=np.zeros((2, 3))), ValueError, "x"),
    "width": (dict(x=np.zeros((2, 4, 9))), ValueError, "weight_ih"),
    "mixed": (dict(x=np.zeros((2, 4, 3), np.float32)), TypeError, "float"),
    "half": (dict(x=np.zeros((2, 4, 3), np.float16)), TypeError, "float16"),
    "state": (dict(h0=np.zeros((2, 9))), ValueError, "h0"),
}


@pytest.mark.parametrize("name", BAD)
def test_recurrent_refuses(name: str) -> None:
    change, error, words = BAD[name]
    rng = np.random.default_rng(0)
    good = dict(
        x=rng.standard_normal((2, 4, 3)), lengths=np.array([4, 2]), cell="lstm", parameters=layer("lstm", 3, 5, rng)
    )
    with pytest.raises(error, match=words) as caught:
        ops.recurrent_forward(**(good | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_takes_weights_of_any_order(cell: str) -> None:
    rng = np.random.default_rng(0)
    parameters, x, lengths = layer(cell, 3, 5, rng), rng.standard_normal((2, 4, 3)), np.array([4, 2])
    results = []
    for weights in (parameters, {n: np.asfortranarray(p) for n, p in parameters.items()}):
        output, *_, cache = ops.recurrent_forward(x, lengths, weights, cell=cell)
        dx, gradients, *_ = ops.recurrent_backward(np.ones_like(output), cache)
        results.append([output, dx, *gradients.values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_recurrent_refuses_transposed_weights() -> None:
    rng = np.random.default_rng(0)
    parameters = layer("gru", 3, 5, rng)
    parameters["weight_hh"] = parameters["weight_hh"].T.copy()
    with pytest.raises(ValueError, match=r"weight_.* has shape .*expected"):
        ops.recurrent_forward(np.zeros((2, 4, 3)), np.array([4, 2]), parameters, cell="gru")


# ------------------------------------------------------------------------------------------------ layer normalisation


def with_gains(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    width = parameters["bias_ih"].shape
    return parameters | {name: 1 + 0.3 * rng.standard_normal(width) for name in ("gain_ih", "gain_hh")}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_layer_normalisation_values_and_gradients(
    isa: str, shape: tuple[int, int, int, int], cell: str, reverse: bool
) -> None:
    """From zero states too: the sums are then 0, and so is what is left of them after the mean."""
    inputs, parameters, lengths = case(cell, shape)
    parameters = with_gains(parameters)
    rng = np.random.default_rng(1)

    def reference_run(a: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        p = {name: a[name] for name in parameters}
        return reference.recurrent(a["x"], lengths, p, cell=cell, reverse=reverse, h0=a["h0"], c0=a.get("c0"))

    for zero in (False, True):
        if zero:
            inputs["h0"] = np.zeros_like(inputs["h0"])
        output, final_h, final_c, cache = run(cell, inputs, parameters, lengths, reverse=reverse)
        for actual, value in zip((output, final_h, final_c), reference_run(inputs | parameters), strict=True):
            if value is not None:
                np.testing.assert_allclose(actual, value, atol=1e-12)
        doutput, dh, dc = douts = random_douts(cell, shape, rng)

        def projected(
            a: dict[str, np.ndarray], doutput: np.ndarray = doutput, dh: np.ndarray = dh, dc: np.ndarray | None = dc
        ) -> np.ndarray:
            out, h, c = reference_run(a)
            total = (out * doutput).sum((-3, -2, -1)) + (h * dh).sum((-2, -1))
            return total if dc is None else total + (c * dc).sum((-2, -1))

        gradients = run_backward(cell, douts, cache)
        reference.assert_gradients(projected, inputs | parameters, gradients, rng)


def test_layer_normalisation_names_the_shapes() -> None:
    inputs, parameters, lengths = case("gru", SMALL[1])
    parameters = with_gains(parameters)
    with pytest.raises(ValueError, match=r"recurrent_forward: gain_hh has shape \(38,\), expected \(G\*H=39,\)"):
        run("gru", inputs, parameters | {"gain_hh": np.ones(38)}, lengths)


@pytest.mark.parametrize("cell", CELLS)
def test_layer_normalisation_does_not_see_the_size_of_the_weights(cell: str) -> None:
    """Ba 2016, section 5: W and 3 W give the same but for the 1e-5 beside the variance, and so does a shift of all."""
    inputs, parameters, lengths = case(cell, (3, 5, 13, 40))
    parameters = with_gains(parameters)
    first = run(cell, inputs, parameters, lengths)[0]
    second = run(cell, inputs, parameters | {"weight_ih": 3 * parameters["weight_ih"] + 0.5}, lengths)[0]
    assert 0 < np.abs(first - second).max() < 1e-3


# ------------------------------------------------------------------------------------------------ both directions


def both_directions(x, lengths, parameters, masks, cell, dout, dfinal, *, at_once):  # type: ignore[no-untyped-def]
    """Outputs and gradients of a bidirectional layer on rows, from the op of both or from two calls."""
    gradients = tuple({name: np.empty_like(p) for name, p in own.items()} for own in parameters)
    if at_once:
        output, final, cache = ops.bidirectional_rows_forward(x, lengths, parameters, cell=cell, state_masks=masks)
        dx = ops.bidirectional_rows_backward(dout, cache, dfinal, gradients=gradients)
    else:
        forward = [
            ops.recurrent_rows_forward(x, lengths, own, cell=cell, reverse=reverse, state_mask=mask)
            for own, mask, reverse in zip(parameters, masks, (False, True), strict=True)
        ]
        output, final = np.concatenate([f[0] for f in forward], 1), tuple(f[1] for f in forward)
        halves = np.split(dout, 2, axis=1)
        dx = np.sum(
            [
                ops.recurrent_rows_backward(half, f[3], d, gradients=own)[0]
                for half, f, d, own in zip(halves, forward, dfinal, gradients, strict=True)
            ],
            axis=0,
        )
    return [output, *final, dx, *(own[name] for own in gradients for name in own)]


@pytest.mark.parametrize("shape", [(1, 9, 5, 7), (3, 40, 13, 40), (40, 13, 40, 64), (24, 50, 64, 256)])
@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_at_once_are_the_bits_of_two_calls(
    isa: str, cell: str, precision: str, shape: tuple[int, int, int, int]
) -> None:
    """bf16: products are rounded where this CPU can, on the thread that is dealt a direction too."""
    (B, S, width, H), dtype = shape, "float64" if precision == "float64" else "float32"
    rng = np.random.default_rng(H)
    lengths = ragged(B, S)
    rows = int(lengths.sum())
    x, dout, dfinal = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, width), (rows, 2 * H), (B, H)))
    parameters = tuple(cast(layer(cell, width, H, rng), dtype) for _ in range(2))
    masks = ((rng.random((B, H)) < 0.7).astype(dtype), None)
    before = dhyan.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):  # two take a direction each
            dhyan.set_num_threads(threads)
            for at_once in (True, False):
                with ops.products(precision == "bf16" and ops.has_bf16()):
                    got = both_directions(x, lengths, parameters, masks, cell, dout, (None, dfinal), at_once=at_once)
                results.append([array.tobytes() for array in got])
    finally:
        dhyan.set_num_threads(before)
    assert all(result == results[0] for result in results)


def test_both_directions_name_what_does_not_fit() -> None:
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((7, 3)), np.array([4, 3])
    good, narrow = layer("gru", 3, 5, rng), layer("gru", 3, 4, rng)
    with pytest.raises(ValueError, match=r"bidirectional_forward: backward\.weight_ih has shape \(3, 12\), expected"):
        ops.bidirectional_rows_forward(x, lengths, (good, narrow), cell="gru")
    _, _, cache = ops.bidirectional_rows_forward(x, lengths, (good, good), cell="gru")
    gradients = ({n: p.copy() for n, p in good.items()}, {n: p.copy() for n, p in good.items()})
    with pytest.raises(ValueError, match=r"doutput has shape \(7, 5\), expected \(N=7, 2\*H=10\)"):
        ops.bidirectional_rows_backward(np.ones((7, 5)), cache, gradients=gradients)
    with pytest.raises(ValueError, match="bidirectional_backward: dweight_ih shares memory with dweight_ih"):
        ops.bidirectional_rows_backward(np.ones((7, 10)), cache, gradients=(gradients[0], gradients[0]))
    with pytest.raises(TypeError, match="state_masks has dtype float32, expected float64"):
        ops.bidirectional_rows_forward(
            x, lengths, (good, good), cell="gru", state_masks=(None, np.ones((2, 5), np.float32))
        )
