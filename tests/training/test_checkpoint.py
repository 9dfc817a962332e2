"""Model folders: a save cut short anywhere leaves the old or the new set, and no damaged byte passes as good."""

import errno
import functools
import hashlib
import itertools
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from dhyan.errors import CheckpointError, NumericError
from dhyan.training import checkpoint
from dhyan.training.checkpoint import (
    FolderLock,
    append_log,
    has_checkpoint,
    listed,
    load_file,
    metadata_from_bytes,
    read_log,
    tensors_from_bytes,
    tensors_to_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

save_files = functools.partial(checkpoint.save_files, new=True)
OLD = {"last.safetensors": b"old weights", "optimizer.safetensors": b"old moments"}
NEW = {"last.safetensors": b"new weights, longer", "optimizer.safetensors": b"new moments", "state.json": b"{}"}


def refused(message, function, *arguments, **options):
    """The call raises CheckpointError with this text, in one line."""
    with pytest.raises(CheckpointError) as caught:
        function(*arguments, **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_bytes())


# Saving and loading


def test_round_trip_and_manifest(tmp_path):
    folder = tmp_path / "new" / "folder"
    save_files(folder, OLD)
    save_files(folder, NEW)
    for name, content in NEW.items():
        assert load_file(folder, name) == (folder / name).read_bytes() == content
    assert sorted(p.name for p in folder.iterdir()) == sorted([*NEW, "manifest.json"])
    manifest = manifest_of(folder)
    assert (manifest["format"], manifest["version"]) == ("dhyan-model", 2)
    for name in NEW:
        contents = [NEW[name]] + ([OLD[name]] if name in OLD else [])
        assert manifest["files"][name] == [{"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for c in contents]


def test_other_files_stay(tmp_path):
    save_files(tmp_path, OLD)
    save_files(tmp_path, {"config.toml": b""})
    assert load_file(tmp_path, "last.safetensors") == b"old weights"
    assert load_file(tmp_path, "config.toml") == b""
    assert has_checkpoint(tmp_path, "last.safetensors") and not has_checkpoint(tmp_path, "model.safetensors")
    assert not has_checkpoint(tmp_path / "nowhere", "last.safetensors")
    assert listed(tmp_path) == ["config.toml", "last.safetensors", "optimizer.safetensors"]
    save_files(tmp_path, {}, without=["optimizer.safetensors", "unknown"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "last.safetensors", "manifest.json"]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    for folder, what in ((tmp_path / "gone", "no such model folder"), (tmp_path, "not a model folder")):
        refused(what, checkpoint.save_files, folder, OLD)
    assert not list(tmp_path.iterdir())


def test_saving_the_same_again_changes_nothing(tmp_path):
    save_files(tmp_path, OLD)
    save_files(tmp_path, NEW)
    save_files(tmp_path, NEW)
    assert len(manifest_of(tmp_path)["files"]["last.safetensors"]) == 1
    assert load_file(tmp_path, "last.safetensors") == NEW["last.safetensors"]


def test_a_damaged_file_is_not_listed_as_replaced(tmp_path):
    save_files(tmp_path, OLD)
    (tmp_path / "last.safetensors").write_bytes(b"damaged")
    save_files(tmp_path, NEW)
    assert len(manifest_of(tmp_path)["files"]["last.safetensors"]) == 1
    assert load_file(tmp_path, "last.safetensors") == NEW["last.safetensors"]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/b",
        "/etc/x",
        "",
        ".",
        "..",
        ".hidden",
        "a\\b",
        "a\0b",
        "a\nb",
        "manifest.json",
        "log.jsonl",
        "x" * 101,
    ],
)
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="is not a name for a file"):
        save_files(tmp_path / "m", {"ok": b"", name: b"x"})
    assert not (tmp_path / "m").exists()
    if name not in ("manifest.json", "log.jsonl"):
        save_files(tmp_path, OLD)
        refused("manifest.json does not list", load_file, tmp_path, name)


# A save cut short

# One interpreter forks a child for each moment: child n is killed in place of its n-th call, in a folder of its own.
KILLS = """
import itertools, os, pathlib, signal, sys
from dhyan.training import checkpoint
root, before, files = pathlib.Path(sys.argv[1]), eval(sys.argv[2]), eval(sys.argv[3])

def save_until(moment, folder):
    counter = itertools.count()
    def guard(name):
        real = getattr(os, name)
        def call(*arguments, **options):
            if next(counter) == moment:
                if name == "write":  # half of it reaches the file
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, name, call)
    for name in ("open", "write", "fsync", "replace", "unlink", "close"):
        guard(name)
    checkpoint.save_files(folder, files, new=True)

for moment in itertools.count():
    folder = root / str(moment)
    if before:
        checkpoint.save_files(folder, before, new=True)
        (folder / ".last.safetensors.0123456789abcdef.tmp").write_bytes(b"stale")
    child = os.fork()
    if child == 0:
        try:
            save_until(moment, folder)
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, flush=True)
    if code != -signal.SIGKILL:
        break
"""


def read_set(folder):
    return {name: load_file(folder, name) for name in NEW if has_checkpoint(folder, name)}


@pytest.mark.parametrize("before", [OLD, {}], ids=["second save", "first save"])
def test_kill_at_any_moment_leaves_old_or_new(tmp_path, before):
    command = [sys.executable, "-c", KILLS, tmp_path, repr(before), repr(NEW)]
    codes = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    assert codes == [str(-signal.SIGKILL)] * (len(codes) - 1) + ["0"]
    seen = []
    for moment in range(len(codes)):
        folder = tmp_path / str(moment)
        found = read_set(folder)
        assert found in (before, NEW), moment
        seen.append(found == NEW)
        # The next save finishes or forgets, removes every temporary and reads back.
        save_files(folder, {"config.toml": b"x"})
        assert read_set(folder) == found
        assert not list(folder.glob(".*"))
    # Old up to the moment of change, new ever after, both seen in many moments.
    assert seen == sorted(seen) and seen.count(False) > 10 and seen.count(True) > 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_names_the_file_and_keeps_a_whole_set(tmp_path, monkeypatch, code):
    results = []
    for moment in itertools.count():
        folder = tmp_path / str(moment)
        save_files(folder, OLD)
        counter = itertools.count()
        with monkeypatch.context() as patch:
            for name in ("open", "write", "fsync", "replace"):
                real = getattr(os, name)

                def call(*arguments, real=real, counter=counter, moment=moment, **options):
                    if next(counter) == moment:
                        raise OSError(code, os.strerror(code))
                    return real(*arguments, **options)

                patch.setattr(os, name, call)
            try:
                save_files(folder, NEW)
            except OSError as error:
                assert error.errno == code and error.filename.startswith(str(folder))
                assert "the last good checkpoint is kept" in str(error) and "\n" not in str(error)
            else:
                break
        found = read_set(folder)
        assert found in (OLD, NEW), moment
        results.append(found == NEW)
        save_files(folder, NEW)
        assert read_set(folder) == NEW and not list(folder.glob(".*"))
    assert results == sorted(results) and len(results) > 10


def test_a_failed_save_leaves_no_temporary(tmp_path, monkeypatch):
    save_files(tmp_path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(OSError, match="broken"):
            save_files(tmp_path, NEW)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*OLD, "manifest.json"])


def test_an_interrupt_after_the_moment_of_change_keeps_the_new_set(tmp_path, monkeypatch):
    save_files(tmp_path, OLD)
    real = os.replace

    def call(source, target):
        real(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", call)
        with pytest.raises(KeyboardInterrupt):
            save_files(tmp_path, NEW)
    assert read_set(tmp_path) == NEW


def test_what_a_power_cut_may_lose_is_on_disk_in_time(tmp_path, monkeypatch):
    """A kill cannot show a missing fsync: so the order of the calls is the test."""
    save_files(tmp_path, OLD)
    paths, calls = {}, []
    real = {name: getattr(os, name) for name in ("open", "fsync", "replace")}

    def open_(path, *arguments):
        file = real["open"](path, *arguments)
        paths[file] = "folder" if path == tmp_path else path.name
        return file

    def fsync(file):
        calls.append(("sync", paths[file]))
        real["fsync"](file)

    def replace(source, target):
        calls.append(("rename", source.name, target.name))
        real["replace"](source, target)

    with monkeypatch.context() as patch:
        for name, function in (("open", open_), ("fsync", fsync), ("replace", replace)):
            patch.setattr(os, name, function)
        save_files(tmp_path, NEW)
    staged = {name: f".{name}.{hashlib.sha256(content).hexdigest()[:16]}.tmp" for name, content in NEW.items()}
    assert calls == [
        *(("sync", name) for name in staged.values()),
        ("sync", ".manifest.json.tmp"),
        ("sync", "folder"),
        ("rename", ".manifest.json.tmp", "manifest.json"),
        ("sync", "folder"),
        *(("rename", temporary, name) for name, temporary in staged.items()),
        ("sync", "folder"),
    ]


def test_a_real_write_limit(tmp_path):
    """The kernel itself refuses the write: file size limit instead of a full disk."""
    save_files(tmp_path, OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large; not saved, .* is kept: .*\.last\.safetensors"):
            save_files(tmp_path, {"last.safetensors": bytes(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_set(tmp_path) == OLD and not list(tmp_path.glob(".*"))


def test_a_reader_follows_a_save_in_between(tmp_path, monkeypatch):
    save_files(tmp_path, OLD)
    real, reads = checkpoint._read_manifest, []

    def read(folder):
        manifest = real(folder)
        if not reads:
            reads.append(1)
            save_files(folder, NEW)  # the reader now holds a manifest that is out of date
            save_files(folder, {"last.safetensors": b"newer still"})
        return manifest

    monkeypatch.setattr(checkpoint, "_read_manifest", read)
    assert load_file(tmp_path, "last.safetensors") == b"newer still"


# Damage


def tiny_folder(folder):
    save_files(
        folder, {"model.safetensors": tensors_to_bytes({"w": np.ones(2, np.float32)}), "config.toml": b"[model]\n"}
    )
    return folder


def load_all(folder):
    for name in ("model.safetensors", "config.toml"):
        load_file(folder, name)


@pytest.mark.parametrize("name", ["model.safetensors", "config.toml", "manifest.json"])
def test_every_flipped_bit_and_every_truncation_is_refused(tmp_path, name):
    path = tiny_folder(tmp_path) / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8) if name != "manifest.json" else (position % 8,):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            refused(name, load_all, tmp_path)
        path.write_bytes(whole[:position])
        refused(name, load_all, tmp_path)
    path.write_bytes(whole + b"\n")
    refused(name, load_all, tmp_path)
    path.write_bytes(whole)
    load_all(tmp_path)


def test_messages_name_file_and_part(tmp_path):
    refused("nowhere: no such model folder", load_file, tmp_path / "nowhere", "config.toml")
    refused("holds no manifest.json: not a model folder", load_file, tmp_path, "config.toml")
    tiny_folder(tmp_path)
    refused(
        "does not list 'last.safetensors', only config.toml, model.safetensors", load_file, tmp_path, "last.safetensors"
    )
    refused("no such model folder", load_file, tmp_path / "config.toml", "x")
    path = tmp_path / "config.toml"
    path.write_bytes(b"[mode")
    refused("config.toml: has 5 bytes, expected 8 as manifest.json says", load_file, tmp_path, "config.toml")
    path.write_bytes(b"[modem]\n")
    refused("config.toml: its contents do not have the SHA-256 digest", load_file, tmp_path, "config.toml")
    path.unlink()
    refused("config.toml: the file is missing", load_file, tmp_path, "config.toml")
    path.mkdir()
    refused("config.toml: is not a regular file", load_file, tmp_path, "config.toml")
    path.rmdir()
    os.mkfifo(path)  # opening it would wait forever
    refused("config.toml: is not a regular file", load_file, tmp_path, "config.toml")


def resigned(body):
    """A manifest whose own digest is right, whatever it says."""
    body = {k: v for k, v in body.items() if k != "sha256"}
    body["sha256"] = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return (json.dumps(body, indent=1) + "\n").encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "version is 3, expected 1 or 2"),
        ({"version": None}, "version is None, expected 1 or 2"),
        ({"version": 1.0}, "version is 1.0, expected 1 or 2"),
        ({"version": True}, "manifest.json"),
        ({"format": "other"}, "format is 'other', expected 'dhyan-model'"),
        ({"files": []}, "files is malformed"),
        ({"files": {"../../etc/passwd": [{"bytes": 1, "sha256": "0" * 64}]}}, "files is malformed"),
        ({"files": {"manifest.json": [{"bytes": 1, "sha256": "0" * 64}]}}, "files is malformed"),
        ({"files": {"x": []}}, "files is malformed"),
        ({"files": {"x": [{"bytes": 1, "sha256": "0" * 64}] * 3}}, "files is malformed"),
        ({"files": {"x": [{"bytes": -1, "sha256": "0" * 64}]}}, "files is malformed"),
        ({"files": {"x": [{"bytes": 1.0, "sha256": "0" * 64}]}}, "files is malformed"),
        ({"files": {"x": [{"bytes": 1, "sha256": "../x"}]}}, "files is malformed"),
        ({"files": {"x": ["0" * 64]}}, "files is malformed"),
        ({"more": 1}, "manifest.json"),
    ],
)
def test_hostile_manifest(tmp_path, change, message):
    path = tiny_folder(tmp_path) / "manifest.json"
    path.write_bytes(resigned(json.loads(path.read_bytes()) | change))
    refused(message, load_file, tmp_path, "x")
    refused(message, save_files, tmp_path, OLD)


def test_pipes_and_folders_are_not_waited_for(tmp_path):
    for name, function in (
        ("manifest.json", lambda: load_file(tmp_path, "x")),
        ("log.jsonl", lambda: read_log(tmp_path)),
    ):
        os.mkfifo(tmp_path / name)
        refused(f"{name}: is not a regular file", function)
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        refused(f"{name}: is not a regular file", function)
        (tmp_path / name).rmdir()


def test_a_file_may_have_a_limit(tmp_path):
    save_files(tmp_path, {"config.toml": b"12345"})
    assert load_file(tmp_path, "config.toml", limit=5) == b"12345"
    refused("config.toml: is larger than the limit of 4 bytes", load_file, tmp_path, "config.toml", limit=4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"null",
        b'{"a": NaN}',
        b'{"a": 1, "a": 1}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_manifest_that_is_not_strict_json(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    refused("manifest.json", load_file, tmp_path, "x")


def test_sizes_are_checked_before_anything_is_read(tmp_path):
    tiny_folder(tmp_path)
    for name in ("config.toml", "manifest.json"):
        with (tmp_path / name).open("r+b") as file:
            file.truncate(1 << 40)  # sparse
        tracemalloc.start()
        try:
            refused(name, load_file, tmp_path, "config.toml")
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()


# Tensors

TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([1e-300, -0.0]),
    "state": np.array([2**64 - 1], np.uint64),
    "empty": np.zeros((0, 3), np.int64),
    "bytes": np.arange(5, dtype=np.uint8),
}
EXPECTED = {name: (tensor.shape, tensor.dtype) for name, tensor in TENSORS.items()}


def test_tensors_round_trip():
    data = tensors_to_bytes(TENSORS, {"step": 7, "संख्या": [1.5, None]})
    tensors = tensors_from_bytes(data, EXPECTED)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and tensors[name].shape == tensor.shape
        assert tensors[name].tobytes() == tensor.tobytes()
        assert tensors[name].flags.writeable and tensors[name].flags.aligned
    assert metadata_from_bytes(data) == {"step": 7, "संख्या": [1.5, None]}
    assert metadata_from_bytes(tensors_to_bytes(TENSORS)) == {}
    assert tensors_from_bytes(data).keys() == TENSORS.keys()


def test_the_library_reads_our_bytes_and_we_read_its():
    from safetensors.numpy import load, save

    assert load(tensors_to_bytes(TENSORS)).keys() == TENSORS.keys()
    assert tensors_from_bytes(save(TENSORS, {"format": "np"}), EXPECTED).keys() == TENSORS.keys()


def test_same_tensors_same_bytes_in_any_order_and_stride():
    metadata = {str(i): i for i in range(20)}
    data = tensors_to_bytes(TENSORS, metadata)
    turned = {name: np.asfortranarray(TENSORS[name]) for name in reversed(TENSORS)}
    assert tensors_to_bytes(turned, dict(reversed(metadata.items()))) == data


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_neither_written_nor_read(bad):
    tensor = np.ones((2, 3), np.float32)
    tensor[1, 2] = bad
    with pytest.raises(NumericError, match=r"w holds (nan|inf|-inf) at \[1, 2\], expected finite"):
        tensors_to_bytes({"w": tensor})
    from safetensors.numpy import save

    refused(r"m: tensor 'w' holds", tensors_from_bytes, save({"w": tensor}), name="m")


@pytest.mark.parametrize("dtype", [np.float16, np.int32, bool, ">f4", object])
def test_only_five_dtypes_are_written(dtype):
    with pytest.raises(TypeError, match=r"w has dtype .*, expected one of float32, float64, int64, uint64, uint8"):
        tensors_to_bytes({"w": np.zeros(2, dtype)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": ((1,), np.float32)}, "m: tensor 'more' is missing"),
        ({"weight": None}, "m: tensor 'weight' is not part of this model"),
        ({"weight": None, "bias": None}, "m: tensor 'bias' is not part of this model (and 1 more)"),
        ({"weight": ((3, 2), np.float32)}, "m: tensor 'weight' is float32 (2, 3), expected float32 (3, 2)"),
        ({"weight": ((2, 3), np.float64)}, "m: tensor 'weight' is float32 (2, 3), expected float64 (2, 3)"),
    ],
)
def test_unexpected_tensors(change, message):
    expected = {name: value for name, value in (EXPECTED | change).items() if value}
    refused(message, tensors_from_bytes, tensors_to_bytes(TENSORS), expected, name="m")


def container(header, body=b"", size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + body


def one(**change):
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "m: header too small"),
        (b"1234567", "m: header too small"),
        (container(b"{}", size=3), "m: invalid header length"),
        (container(b"{}", size=2**64 - 1), "m: header too large"),
        (container(b""), "m: invalid JSON in header"),
        (container(b"[]"), "m: invalid JSON in header"),
        (container(b'{"a": \xff}'), "m: invalid UTF-8 in header"),
        (container(b'{"a":' * 100_000), "m: invalid JSON in header: recursion limit exceeded"),
        (container(b"[" * 100_000), "m: invalid JSON in header"),
        (container(b'{"w": {"dtype": "F32", "dtype": "F64"}}'), "m: invalid JSON in header: duplicate field"),
        (container(b'{"w": ' + b"9" * 5000 + b"}"), "m: invalid JSON in header: number out of range"),
        (container({"w": []}), "m: invalid JSON in header"),
        (container(one(dtype="F128")), "m: invalid JSON in header: unknown variant `F128`"),
        (
            container(one(dtype="F16", data_offsets=[0, 4]), bytes(4)),
            "m: tensor 'w': dtype is F16",
        ),
        (container(one(shape=[2.0])), "m: invalid JSON in header"),
        (container(one(shape=[-2])), "m: invalid JSON in header"),
        (container(one(shape=[1] * 70, data_offsets=[0, 4]), bytes(4)), "m: tensor 'w': shape [1, 1, "),
        (container(one(shape=[0, 2**63], data_offsets=[0, 0])), "m: tensor 'w': shape [0, 9223372036854775808]"),
        (container(one(data_offsets=[8, 0])), "m: invalid offset for tensor `w`"),
        (container(one(shape=[2**40, 2**40])), "m: overflow computing buffer size"),
        (container(one(shape=[2**40], data_offsets=[0, 2**42])), "m: incomplete metadata, file not fully covered"),
        (container(one(), bytes(7)), "m: incomplete metadata, file not fully covered"),
        (container(one(), bytes(9)), "m: incomplete metadata, file not fully covered"),
        (container(one(data_offsets=[4, 12]), bytes(12)), "m: invalid offset for tensor `w`"),
        (container(one() | {"v": one()["w"]}, bytes(8)), "m: invalid offset for tensor"),
        (container(one() | {"v": one(data_offsets=[12, 20])["w"]}, bytes(20)), "m: invalid offset for tensor `v`"),
        (container(one() | {"__metadata__": 3}, bytes(8)), "m: invalid JSON in header"),
        (container(one() | {"__metadata__": {"a": 1}}, bytes(8)), "m: invalid JSON in header"),
    ],
)
def test_hostile_header(data, message):
    tracemalloc.start()
    try:
        for function in (tensors_from_bytes, metadata_from_bytes):
            if "tensor 'w'" not in message or function is tensors_from_bytes:
                refused(message, function, data, name="m")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a":' * 100, "9" * 5000], ids=lambda text: text[:20]
)
def test_hostile_metadata(text):
    refused("m: __metadata__: ", metadata_from_bytes, container({"__metadata__": {"dhyan": text}}), name="m")


def test_every_flipped_bit_of_tensors_is_refused_or_changes_numbers_only():
    data = tensors_to_bytes({"w": np.ones(2, np.float32), "v": np.ones(1)})
    expected = {"w": ((2,), np.float32), "v": ((1,), np.float64)}
    for position, bit in itertools.product(range(len(data)), range(8)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        try:
            tensors = tensors_from_bytes(bytes(damaged), expected, name="m")
        except CheckpointError as error:
            assert str(error).startswith("m:") and "\n" not in str(error)
        else:
            assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == expected
    for length in range(len(data)):
        refused("m:", tensors_from_bytes, data[:length], expected, name="m")


@given(
    data=st.binary(max_size=80),
    header=st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
    ),
)
def test_any_bytes_give_tensors_or_a_checkpoint_error(data, header):
    for hostile in (data, container(header, data), container({"w": header}, data)):
        for function in (tensors_from_bytes, metadata_from_bytes):
            try:
                function(hostile, name="m")
            except CheckpointError as error:
                assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("key", ["[" * 100, "\\" * 101 + "{" * 100, '"' + "[" * 100, "\n" + "{" * 100])
def test_brackets_in_names_are_no_nesting(key):
    assert tensors_from_bytes(tensors_to_bytes({key: np.ones(1)}, {"note": key})).keys() == {key}


# Log and lock


def test_log(tmp_path):
    assert read_log(tmp_path) == []
    append_log(tmp_path, {"step": 1, "loss": 0.5, "text": "मैं"})
    append_log(tmp_path, {"step": 2, "loss": math.nan, "rate": math.inf})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "lo')  # a crash in the middle of a line
    assert [r["step"] for r in read_log(tmp_path)] == [1, 2]
    append_log(tmp_path, {"step": 3})
    assert read_log(tmp_path) == [
        {"step": 1, "loss": 0.5, "text": "मैं"},
        {"step": 2, "loss": None, "rate": None},
        {"step": 3},
    ]
    assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == 3


def test_the_lock_knows_its_folder(tmp_path):
    folder = tmp_path / "model"
    with FolderLock(folder) as lock:
        lock.check()
        folder.rename(tmp_path / "moved")
        refused(f"{folder}: the folder was removed or moved during training; not saved", lock.check)
        folder.mkdir()
        refused("removed or moved", lock.check)  # another one by the same name
        folder.rmdir()
        (tmp_path / "moved").rename(folder)
        lock.check()


def test_log_errors(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{}\n{"a"\n')
    refused("log.jsonl:2: is not valid JSON", read_log, tmp_path)
    with pytest.raises(OSError, match=r"not saved.*log\.jsonl"):
        append_log(tmp_path / "nowhere", {})


def test_the_second_trainer_refuses(tmp_path):
    folder = tmp_path / "model"
    with FolderLock(folder):
        with (
            pytest.raises(BlockingIOError, match=f"process {os.getpid()} is training in this folder") as caught,
            FolderLock(folder),
        ):
            pass
        assert "\n" not in str(caught.value)
    with FolderLock(folder):
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    code = """
import sys, time
from dhyan.training.checkpoint import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"held\n"
            with pytest.raises(BlockingIOError, match=f"process {child.pid} is training"), FolderLock(tmp_path):
                pass
        finally:
            child.kill()
    with FolderLock(tmp_path):
        pass
