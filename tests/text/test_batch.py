"""Batches: shapes, dtypes, lengths and ids are checked once, here; the order of examples depends on the seed alone."""

import dataclasses

import numpy as np
import pytest
from dhyan.text.batch import Batch, make_batches, pad
from hypothesis import given
from hypothesis import strategies as st


def good():
    """B = 2, S = 3, T = 3."""
    return {
        "source": np.array([[4, 5, 2], [6, 2, 0]]),
        "source_lengths": np.array([3, 2]),
        "target": np.array([[1, 4, 5, 2], [1, 4, 2, 0]]),
        "target_lengths": np.array([4, 3]),
    }


def test_from_ids_adds_symbols_and_pads():
    batch = Batch.from_ids([[4, 5], [6]], [[4, 5], [4]])
    for name, array in good().items():
        np.testing.assert_array_equal(getattr(batch, name), array)
        assert getattr(batch, name).dtype == np.int64
    assert batch.size == 2 and batch.target_tokens == 5


def test_from_ids_of_nothing():
    batch = Batch.from_ids([], [])
    assert batch.source.shape == (0, 0) and batch.target.shape == (0, 1) and batch.target_tokens == 0
    batch = Batch.from_ids([[]], [[]])
    assert batch.source.tolist() == [[2]] and batch.target.tolist() == [[1, 2]]


def test_from_ids_errors():
    with pytest.raises(ValueError, match="1 sources and 2 targets"):
        Batch.from_ids([[4]], [[4], [5]])
    with pytest.raises(TypeError, match="row 0 holds float64"):
        Batch.from_ids([[4.5]], [[4]])
    with pytest.raises(IndexError, match=r"source\[0, 1\] is -1, expected 0 <= id"):
        Batch.from_ids([[4, -1]], [[4]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sources_may_be_features(dtype):
    batch = Batch(**good() | {"source": np.full((2, 3, 5), -1.5, dtype)})
    assert batch.source.dtype == dtype


def test_any_stride_is_read():
    arrays = good()
    strange = {
        "source": np.asfortranarray(arrays["source"]),
        "source_lengths": np.array([2, 3])[::-1],
        "target": np.repeat(arrays["target"], 2, axis=1)[:, ::2],
        "target_lengths": np.frombuffer(b"x" + arrays["target_lengths"].tobytes(), np.int64, 2, 1),
    }
    strange["source"].flags.writeable = False
    batch = Batch(**strange)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(batch, name), array)
        assert getattr(batch, name).flags.c_contiguous and getattr(batch, name).flags.aligned


def test_batch_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Batch(**good()).source = None


@pytest.mark.parametrize("name", ["source", "source_lengths", "target", "target_lengths"])
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.tolist(),
        lambda a: None,
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.int32),
        lambda a: a.astype(np.uint64),
        lambda a: a.astype(complex),
        lambda a: a.astype(object),
        lambda a: a.astype(">i8"),
        lambda a: a.astype(bool),
        lambda a: a.astype([("x", np.int64)]),
    ],
)
def test_wrong_type_is_a_type_error(name, change):
    arrays = good()
    with pytest.raises(TypeError, match=rf"^Batch: {name} (is a|has dtype) .*, expected .*int64") as caught:
        Batch(**arrays | {name: change(arrays[name])})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["source_lengths", "target", "target_lengths"])
def test_floats_where_only_integers_may_stand(name):
    arrays = good()
    with pytest.raises(TypeError, match=f"Batch: {name} has dtype float64, expected"):
        Batch(**arrays | {name: arrays[name].astype(np.float64)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("source", np.zeros(3, np.int64), r"source has shape \(3,\), expected \(B, S\)"),
        ("source", np.zeros((2, 3)), r"source has shape \(2, 3\), expected \(B, S, F\)"),
        ("source", np.zeros((2, 3, 4, 5)), r"expected \(B, S, F\)"),
        ("target", np.zeros((2, 3, 4), np.int64), r"expected \(B, T \+ 1\)"),
        ("target", np.zeros((2, 0), np.int64), r"target has shape \(2, 0\), expected"),
        ("target", np.ones((3, 4), np.int64), r"expected \(B=2, T \+ 1\) to match source \(2, 3\)"),
        ("source_lengths", np.array([3]), r"source_lengths has shape \(1,\), expected \(B=2,\) to match source"),
        ("source_lengths", np.array([[3, 2]]), r"source_lengths has shape \(1, 2\), expected \(B,\)"),
        ("source_lengths", np.array([3, 4]), r"source_lengths\[1\] is 4, expected 0 to 3"),
        ("source_lengths", np.array([-1, 2]), r"source_lengths\[0\] is -1, expected 0 to 3"),
        ("target_lengths", np.array([4, 3, 3]), r"target_lengths has shape \(3,\), expected \(B=2,\) to match target"),
        ("target_lengths", np.array([5, 3]), r"target_lengths\[0\] is 5, expected 2 to 4"),
        ("target_lengths", np.array([4, 1]), r"target_lengths\[1\] is 1, expected 2 to 4"),
    ],
)
def test_wrong_shape_or_length_is_a_value_error(name, value, message):
    with pytest.raises(ValueError, match="^Batch: .*" + message):
        Batch(**good() | {name: value})


def test_negative_ids_are_an_index_error():
    arrays = good()
    arrays["target"][1, 2] = -7
    with pytest.raises(IndexError, match=r"Batch: target\[1, 2\] is -7, expected 0 <= id$"):
        Batch(**arrays)


def test_pad():
    array, lengths = pad([[4, 5], [], [6]])
    assert array.tolist() == [[4, 5], [0, 0], [6, 0]] and lengths.tolist() == [2, 0, 1]


# The order of training


@given(
    lengths=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60),
    size=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_example_comes_once(lengths, size, seed):
    source, target = [a for a, _ in lengths], [b for _, b in lengths]
    batches = make_batches(source, target, size, seed=seed, epoch=1)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[: len(lengths) // size] == [size] * (len(lengths) // size)
    assert len(batches) == -(-len(lengths) // size)


def test_order_is_a_function_of_seed_and_epoch():
    lengths = np.arange(200) % 17, np.arange(200) % 13
    one = [b.tolist() for b in make_batches(*lengths, 8, seed=3, epoch=5)]
    assert one == [b.tolist() for b in make_batches(lengths[0].tolist(), lengths[1].tolist(), 8, seed=3, epoch=5)]
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert one != [b.tolist() for b in make_batches(*lengths, 8, seed=seed, epoch=epoch)]
    np.random.seed(0)  # the global generator is neither read nor moved
    before = np.random.get_state()[1].tolist()
    assert one == [b.tolist() for b in make_batches(*lengths, 8, seed=3, epoch=5)]
    assert np.random.get_state()[1].tolist() == before


def test_order_stays_the_same_in_every_numpy():
    batches = make_batches([3, 1, 2, 3, 1, 2], [1, 1, 2, 2, 3, 3], 2, seed=0, epoch=0)
    assert [b.tolist() for b in batches] == [[4, 5], [1, 0], [2, 3]]


def test_like_lengths_come_together():
    rng = np.random.default_rng(0)
    source = rng.integers(3, 30, 2000)
    target = np.maximum(1, source + rng.integers(-3, 4, 2000))
    batches = make_batches(source, target, 32, seed=0, epoch=0)
    padded = sum(len(b) * (source[b].max() + target[b].max()) for b in batches)
    # In file order the same batches are 1.8 times the tokens; the bound leaves room for another seed.
    assert padded / (source.sum() + target.sum()) < 1.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"seed": -1}, "seed is -1, expected 0 <= seed"),
        ({"epoch": 2**64}, "epoch is 18446744073709551616, expected 0 <= epoch"),
        ({"lengths_target": [1]}, r"lengths have shapes \(2,\) and \(1,\)"),
        ({"lengths_source": [[1, 2]], "lengths_target": [[1, 2]]}, r"shapes \(1, 2\)"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"lengths_source": [1, 2], "lengths_target": [1, 2], "batch_size": 1, "seed": 0, "epoch": 0}
    with pytest.raises(ValueError, match="^make_batches: .*" + message):
        make_batches(**arguments | change)


# Alignments


def aligned(**changes):
    """good() with a link 0-0, a word read from two, and an end symbol read from nowhere."""
    alignment = np.zeros((2, 3, 3))
    alignment[0, 0, 0] = 1
    alignment[0, 1, :2] = 0.5
    alignment[1, 0, 0] = 1
    return good() | {"alignment": alignment} | changes


def test_links_become_equal_weights():
    links = [[(0, 0, True), (0, 1, False), (1, 1, True)], [(0, 0)]]
    batch = Batch.from_ids([[4, 5], [6]], [[4, 5], [4]], links)
    np.testing.assert_array_equal(batch.alignment, aligned()["alignment"])
    assert batch.alignment.dtype == np.float64
    thrice = Batch.from_ids([[4, 5, 6]], [[7]], [((2, 0), (0, 0), (2, 0), (1, 0))])  # a link said twice is one link
    np.testing.assert_array_equal(thrice.alignment[0], [[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0]])


def test_rows_without_links_are_zero():
    batch = Batch.from_ids([[4, 5], [6]], [[4, 5], [4]], [None, ()])
    assert batch.alignment.shape == (2, 3, 3) and not batch.alignment.any()
    assert Batch.from_ids([[4]], [[4]]).alignment is None
    assert Batch.from_ids([], [], []).alignment.shape == (0, 0, 0)
    assert Batch.from_ids([[]], [[]], [()]).alignment.tolist() == [[[0.0]]]
    assert Batch.from_ids([[4]], [[4]], [iter([(0, 0)])]).alignment[0].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("links", "error", "message"),
    [
        ([()], ValueError, "links of 1 examples, expected 2"),
        ([(), [(2, 0)]], ValueError, r"links\[1\] names source 2, expected 0 <= index < 2, the length of the source"),
        ([(), [(0, 0), (0, 3, True)]], ValueError, r"links\[1\] names target 3, expected 0 <= index < 3"),
        ([[(-1, 0)], ()], ValueError, r"links\[0\] names source -1"),
        ([[(0, 10**30)], ()], (TypeError, ValueError), r"links\[0\]"),
        ([[(0.0, 1.0)], ()], TypeError, r"links\[0\] holds float64, expected pairs of integers"),
        ([[(0,)], ()], TypeError, r"links\[0\] is \[\(0,\)\], expected \(source index, target index\) items"),
        ([["0-0"], ()], TypeError, r"links\[0\]"),
        ([3, ()], TypeError, r"links\[0\] is 3, expected"),
    ],
)
def test_bad_links(links, error, message):
    with pytest.raises(error, match="^Batch.from_ids: " + message) as caught:
        Batch.from_ids([[4, 5], [6, 7]], [[4, 5], [4, 5, 6]], links)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_alignment_keeps_its_dtype_and_any_stride(dtype):
    alignment = aligned()["alignment"].astype(dtype)
    for strange in (np.asfortranarray(alignment), np.repeat(alignment, 2, axis=2)[:, :, ::2]):
        batch = Batch(**aligned(alignment=strange))
        np.testing.assert_array_equal(batch.alignment, alignment)
        assert batch.alignment.dtype == dtype and batch.alignment.flags.c_contiguous
    third = np.full((2, 3, 3), 1 / 3, dtype)[:, :2]  # float32 thirds sum to a little more than 1
    lengths = {"source_lengths": np.array([3, 3]), "target": np.full((2, 3), 4), "target_lengths": np.array([3, 3])}
    Batch(**good() | lengths | {"alignment": third})


def change(*index, value):
    alignment = aligned()["alignment"]
    alignment[index] = value
    return alignment


@pytest.mark.parametrize(
    ("alignment", "error", "message"),
    [
        ([[[1.0]]], TypeError, "alignment is a list, expected a NumPy array or None"),
        (np.zeros((2, 3, 3), int), TypeError, "alignment has dtype int64, expected float32 or float64"),
        (np.zeros((2, 3, 3), bool), TypeError, "alignment has dtype bool"),
        (np.zeros((2, 3, 3), np.float16), TypeError, "alignment has dtype float16"),
        (np.zeros((2, 3, 3), ">f8"), TypeError, "alignment has dtype >f8"),
        (np.zeros((2, 4, 3)), ValueError, r"alignment has shape \(2, 4, 3\), expected \(B=2, T=3, S=3\) to match"),
        (np.zeros((3, 3)), ValueError, r"alignment has shape \(3, 3\), expected \(B=2"),
        (change(0, 1, 0, value=np.nan), ValueError, r"alignment\[0, 1, 0\] is nan, expected a finite number, 0"),
        (change(0, 1, 0, value=np.inf), ValueError, r"alignment\[0, 1, 0\] is inf, expected a finite"),
        (change(1, 0, 1, value=-0.5), ValueError, r"alignment\[1, 0, 1\] is -0.5, expected a finite number, 0 or"),
        (change(1, 0, 2, value=0.5), ValueError, r"alignment\[1, 0, 2\] is 0.5, expected 0: it is outside the sent"),
        (change(1, 2, 0, value=0.5), ValueError, r"alignment\[1, 2, 0\] is 0.5, expected 0: it is outside the sent"),
        (change(1, 2, 0, value=np.nan), ValueError, r"alignment\[1, 2, 0\] is nan, expected 0: it is outside"),
        (change(0, 1, 0, value=1.0), ValueError, r"alignment\[0, 1\] sums to 1.5, expected at most 1"),
        (change(0, 1, value=1e308), ValueError, r"alignment\[0, 1\] sums to inf, expected at most 1"),
    ],
)
def test_bad_alignments(alignment, error, message):
    with pytest.raises(error, match="^Batch: " + message) as caught:
        Batch(**aligned(alignment=alignment))
    assert "\n" not in str(caught.value)


def test_features_may_be_aligned():
    batch = Batch(**aligned(source=np.zeros((2, 3, 5), np.float32)))
    assert batch.alignment.shape == (2, 3, 3)
