"""Files of a model folder, written so that a crash at any moment leaves the old or the new set of them whole.

A save stages every new file under a temporary name, then renames a new ``manifest.json`` into place: that rename is
the moment of change. Only then are the staged files renamed over the old ones. The manifest lists, for every file but
the log, size and SHA-256 of the contents it accepts: the new ones and the ones they replace. Whoever reads after a
crash in between finds the staged file by its digest, so files saved together are read together; the next save
finishes the renames and removes what is stale.

Tensors travel in the safetensors format, whose own library checks the header against the file before anything of the
size it claims is allocated; names, shapes and numbers are checked here. There is no pickle anywhere.

Format version 2 keeps all that a run resumes from in one file, where version 1 had several; `folder` reads both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dhyan import strict_json
from dhyan.errors import CheckpointError, NumericError

MANIFEST = "manifest.json"
LOG = "log.jsonl"
LOCK = "train.lock"
FORMAT = "dhyan-model"
VERSION = 2
_READABLE = (1, 2)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STAGED = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._-]*\.tmp")
_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)  # strings, so as to pass over them, and brackets
_MAX_DEPTH = 32
_MAX_JSON = 16 << 20  # bytes of a manifest
_MAX_LOG = 1 << 30
_DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "U64": np.uint64, "U8": np.uint8}
_DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_METADATA_KEY = "dhyan"

Expected = Mapping[str, tuple[tuple[int, ...], Any]]
_Entry = dict[str, Any]  # {"bytes": size, "sha256": hexadecimal digest}
_Manifest = dict[str, list[_Entry]]  # name -> what is accepted: the new contents, then those they replace


def save_files(
    folder: str | Path, files: Mapping[str, bytes], *, without: Iterable[str] = (), new: bool = False
) -> None:
    """Replace these files of a model folder as one set; its other files stay.

    without: names that the folder no longer holds from the moment it lists these files. new: make the folder, or a
    model folder of it, where it is none.

    Errors: ValueError for a name that is not a plain file name; OSError naming the file (disk full, input/output
    error), with the last good checkpoint kept; CheckpointError where the folder's manifest is damaged, or where there
    is no such model folder: one that was removed meanwhile is not made again, since it would lack the other files.
    """
    folder = Path(folder)
    for name in files:
        if not _is_file_name(name):
            raise ValueError(f"save_files: {name!r} is not a name for a file of a model folder")
    if new:
        with _saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
    manifest = {} if new and not (folder / MANIFEST).exists() else _read_manifest(folder)
    _finish_last_save(folder, manifest)
    dropped = [folder / name for name in without if manifest.pop(name, None)]
    staged: dict[Path, Path] = {}
    temporary = folder / f".{MANIFEST}.tmp"
    try:
        for name, data in files.items():
            entry = _entry_of(data)
            replaced = _accepted(folder / name, manifest.get(name, []))
            manifest[name] = [entry] if replaced in (None, entry) else [entry, replaced]
            if replaced != entry:
                staged[_staged_path(folder, name, entry)] = folder / name
                _write_synced(_staged_path(folder, name, entry), data)
        _write_synced(temporary, _manifest_bytes(manifest))
        with _saving(folder / MANIFEST):
            _sync_folder(folder)  # the staged files must be there before a manifest names them
            os.replace(temporary, folder / MANIFEST)
    except BaseException:
        # An interrupt may come just after the rename: what the manifest names must stay.
        if not (folder / MANIFEST).exists() or _read_manifest(folder) != manifest:
            for path in (*staged, temporary):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        raise
    with _saving(folder):
        _sync_folder(folder)  # no new file may be in place on disk before the manifest that accepts it
        for source, target in staged.items():
            os.replace(source, target)
        for path in dropped:
            path.unlink(missing_ok=True)
        _sync_folder(folder)


def load_file(folder: str | Path, name: str, *, limit: int | None = None) -> bytes:
    """The contents of one file, verified against the manifest; limit: of its bytes.

    Errors: CheckpointError naming the file where the folder is no model folder, or the file is missing, cut short,
    changed, larger than the limit, or not a file at all.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    while True:
        if name not in manifest:
            listed = ", ".join(sorted(manifest)) or "none"
            raise CheckpointError(f"{folder}: {MANIFEST} does not list {_short(name)}, only {listed}")
        if limit is not None and manifest[name][0]["bytes"] > limit:
            raise CheckpointError(f"{folder / name}: is larger than the limit of {limit} bytes")
        new, *replaced = manifest[name]
        for path, entry in (
            (folder / name, new),
            (_staged_path(folder, name, new), new),  # a save was cut short after its manifest
            *((folder / name, old) for old in replaced),
        ):
            data = _read_if(path, entry)
            if data is not None:
                return data
        # Another process may have saved since the manifest was read: judge the file by a manifest that stood still.
        again = _read_manifest(folder)
        if again == manifest:
            raise CheckpointError(f"{folder / name}: {_why_refused(folder / name, manifest[name])}")
        manifest = again


def listed(folder: str | Path) -> list[str]:
    """The files of a model folder, none where it is no such folder. Errors: CheckpointError for a damaged manifest."""
    return sorted(_read_manifest(Path(folder))) if (Path(folder) / MANIFEST).exists() else []


def has_checkpoint(folder: str | Path, name: str) -> bool:
    """Whether the folder is a model folder that lists this file. Errors: CheckpointError for a damaged manifest."""
    return name in listed(folder)


def tensors_to_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None) -> bytes:
    """Tensors and JSON metadata in the safetensors format; the same input gives the same bytes.

    Errors: NumericError naming the first tensor with NaN or Inf; TypeError for a dtype that is not float32, float64,
    int64, uint64 or uint8.
    """
    from safetensors.numpy import save

    arrays = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES:
            raise TypeError(f"tensors_to_bytes: {name} has dtype {tensor.dtype}, expected one of {_dtype_list()}")
        _check_finite(tensor, f"tensors_to_bytes: {name}", NumericError)
        arrays[name] = np.ascontiguousarray(tensor).reshape(tensor.shape)
    # One key only: the library writes several in an order that changes from run to run.
    text = None if metadata is None else {_METADATA_KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)}
    return save(arrays, text)


def tensors_from_bytes(
    data: bytes, expected: Expected | None = None, *, name: str = "tensors"
) -> dict[str, np.ndarray]:
    """Tensors of bytes in the safetensors format: exactly the expected ones, name -> (shape, dtype), all finite.

    The arrays are new and writable. expected=None takes whatever tensors there are. Errors: CheckpointError naming
    the file (name) and the tensor or the part of the header.
    """
    tensors = {}
    for key, part in _deserialize(data, name):
        if part["dtype"] not in _DTYPES:
            raise CheckpointError(
                f"{name}: tensor {_short(key)}: dtype is {part['dtype']}, expected one of {', '.join(_DTYPES)}"
            )
        try:
            tensors[key] = np.frombuffer(part["data"], _DTYPES[part["dtype"]]).reshape(part["shape"])
        except ValueError as error:  # more axes, or larger ones beside one of 0, than an array can have
            raise CheckpointError(f"{name}: tensor {_short(key)}: shape {_short(part['shape'])} ({error})") from None
    if expected is not None:
        _check_expected(tensors, expected, name)
    for key, tensor in tensors.items():
        _check_finite(tensor, f"{name}: tensor {_short(key)}", CheckpointError)
    return {key: np.require(tensor, requirements=["A", "W"]) for key, tensor in tensors.items()}


def metadata_from_bytes(data: bytes, *, name: str = "tensors") -> dict[str, Any]:
    """The metadata that tensors_to_bytes was given; {} without any. Errors: CheckpointError."""
    _deserialize(data, name)  # the header is well-formed
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except ValueError as error:  # an integer of thousands of digits, where the library does not look
        raise CheckpointError(f"{name}: header: {_short(str(error), 80)}") from None
    return json_object((header.get("__metadata__") or {}).get(_METADATA_KEY, "{}").encode(), f"{name}: __metadata__")


def _deserialize(data: bytes, name: str) -> list[tuple[str, dict[str, Any]]]:
    from safetensors import SafetensorError, deserialize

    try:
        return deserialize(data)
    except SafetensorError as error:
        reason = " ".join(str(error).split()).removeprefix("Error while deserializing: ")
        raise CheckpointError(f"{name}: {_short(reason, 200)}") from None


def append_log(folder: str | Path, report: Mapping[str, Any]) -> None:
    """Add one JSON line to the folder's log.jsonl; NaN and Inf become null. A line cut short by a crash is removed.

    Errors: OSError naming the file.
    """
    path = Path(folder) / LOG
    line = strict_json.dumps(dict(report)).encode() + b"\n"
    with _saving(path), open(path, "ab+", buffering=0) as log:
        log.seek(0)
        old = log.read() or b""
        if not old.endswith(b"\n"):
            log.truncate(old.rfind(b"\n") + 1)
        _write_all(log.fileno(), line)


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The reports of log.jsonl, without a last line cut short by a crash. Errors: CheckpointError naming the line."""
    path = Path(folder) / LOG
    lines = _read_regular(path, _MAX_LOG).split(b"\n")[:-1] if path.exists() else []
    return [json_object(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


class FolderLock:
    """Context manager: this process is the only trainer of the folder, which is made if it is missing.

    The kernel drops the lock when the process ends, however it ends. Errors: BlockingIOError if it is held.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._file: int | None = None
        self._place: int | None = None  # the folder itself, held open so that no other one can take its number

    def __enter__(self) -> FolderLock:
        import fcntl  # not on Windows, where the rest of the module may still be of use

        with _saving(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            if not isinstance(error, BlockingIOError):
                raise OSError(error.errno, f"{error.strerror}; cannot lock", str(self._folder / LOCK)) from None
            raise BlockingIOError(
                f"{self._folder}: process {holder} is training in this folder; wait for it or choose another folder"
            ) from None
        self._file, self._place = file, os.open(self._folder, os.O_RDONLY)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        return self

    def check(self) -> None:
        """CheckpointError where the folder is no longer the one that was locked: what is saved there would be lost."""
        try:
            if self._place is not None and os.path.samestat(os.stat(self._folder), os.fstat(self._place)):
                return
        except OSError:
            pass
        raise CheckpointError(f"{self._folder}: the folder was removed or moved during training; not saved")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file stays: removing it would let a third process lock a new one while a second holds the old.
        for file in (self._file, self._place):
            if file is not None:
                os.close(file)
        self._file = self._place = None


# Saving ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Make an OSError name the file and say what is left."""
    try:
        yield
    except OSError as error:
        message = f"{error.strerror or error}; not saved, the last good checkpoint is kept"
        raise OSError(error.errno, message, str(path)) from error


def _write_synced(path: Path, data: bytes) -> None:
    with _saving(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write_all(file, data)
            os.fsync(file)
        finally:
            os.close(file)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _finish_last_save(folder: Path, manifest: _Manifest) -> None:
    """Do the renames that a save cut short after its manifest left undone; remove its other temporaries."""
    with _saving(folder):
        for name, (new, *_) in manifest.items():
            staged = _staged_path(folder, name, new)
            if _accepted(staged, [new]):
                os.replace(staged, folder / name)
        for path in folder.iterdir():
            if _STAGED.fullmatch(path.name):
                path.unlink()


def _staged_path(folder: Path, name: str, entry: _Entry) -> Path:
    return folder / f".{name}.{entry['sha256'][:16]}.tmp"


def _entry_of(data: bytes) -> _Entry:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _accepted(path: Path, entries: list[_Entry]) -> _Entry | None:
    """The entry that the file's contents have now, if any."""
    return next((entry for entry in entries if _read_if(path, entry) is not None), None)


def _read_if(path: Path, entry: _Entry) -> bytes | None:
    """The contents of a regular file if they are what the entry says; size first, so that nothing else is read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry["bytes"]:
            return None
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    return data if _entry_of(data) == entry else None


def _read_regular(path: Path, limit: int) -> bytes:
    """The contents of a file of at most so many bytes; a pipe or a device is not waited for.

    Errors: FileNotFoundError, NotADirectoryError; CheckpointError for whatever else cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path}: is not a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > limit:
        raise CheckpointError(f"{path}: is larger than the limit of {limit} bytes")
    return data


def _why_refused(path: Path, entries: list[_Entry]) -> str:
    if not path.exists():
        return f"the file is missing, {MANIFEST} lists it"
    if not path.is_file():
        return "is not a regular file"
    size, sizes = path.stat().st_size, [entry["bytes"] for entry in entries]
    if size not in sizes:
        return f"has {size} bytes, expected {' or '.join(map(str, sizes))} as {MANIFEST} says (cut short?)"
    return f"its contents do not have the SHA-256 digest that {MANIFEST} lists (damaged or edited?)"


# The manifest ---------------------------------------------------------------------------------------------------------


def _is_file_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name not in (MANIFEST, LOG, LOCK)


def _manifest_bytes(files: _Manifest, version: int = VERSION) -> bytes:
    body: dict[str, Any] = {"format": FORMAT, "version": version, "files": dict(sorted(files.items()))}
    body["sha256"] = hashlib.sha256(json.dumps(body).encode()).hexdigest()  # of all that stands before it
    return (json.dumps(body, indent=1) + "\n").encode()


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    try:
        data = _read_regular(path, _MAX_JSON)
    except (FileNotFoundError, NotADirectoryError):
        what = f"holds no {MANIFEST}: not a model folder" if folder.is_dir() else "no such model folder"
        raise CheckpointError(f"{folder}: {what}") from None
    body = json_object(data, str(path))
    if body.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format is {_short(body.get('format'))}, expected {FORMAT!r}")
    version = body.get("version")
    if type(version) is not int or version not in _READABLE:
        raise CheckpointError(f"{path}: version is {_short(version)}, expected {' or '.join(map(str, _READABLE))}")
    files = body.get("files")
    if not isinstance(files, dict) or not all(_is_manifest_item(*item) for item in files.items()):
        raise CheckpointError(f"{path}: files is malformed, expected plain file names with one or two digests each")
    # Byte for byte what would be written: whatever was changed, if only a space, was not changed by a save.
    if data != _manifest_bytes(files, version):
        raise CheckpointError(f"{path}: its contents do not have the SHA-256 digest it states (damaged or edited?)")
    return files


def _is_manifest_item(name: str, entries: object) -> bool:
    return (
        _is_file_name(name)
        and isinstance(entries, list)
        and 1 <= len(entries) <= 2
        and all(
            isinstance(entry, dict)
            and entry.keys() == {"bytes", "sha256"}
            and _is_size(entry["bytes"])
            and isinstance(entry["sha256"], str)
            and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
            for entry in entries
        )
    )


# Tensors --------------------------------------------------------------------------------------------------------------


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """Strict JSON: one object, no repeated keys, no NaN. Errors: CheckpointError."""

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            repeated = next(key for i, (key, _) in enumerate(items) if key in dict(items[:i]))
            raise CheckpointError(f"{where}: the key {_short(repeated)} stands twice")
        return found

    def refuse(constant: str) -> None:
        raise CheckpointError(f"{where}: holds {constant}, expected JSON without it")

    try:
        text = data.decode()
        if _is_nested_deeply(text):
            raise CheckpointError(f"{where}: is nested more than {_MAX_DEPTH} deep")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except CheckpointError:
        raise
    except ValueError as error:  # not UTF-8, not JSON, or an integer of thousands of digits
        raise CheckpointError(f"{where}: is not valid JSON ({_short(str(error), 80)})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: holds a {type(value).__name__}, expected a JSON object")
    return value


def _is_nested_deeply(text: str) -> bool:
    """Counted before parsing: where a program has raised its recursion limit, json overruns the stack instead."""
    depth = 0
    for token in _NESTING.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth > _MAX_DEPTH:
            return True
    return False


def _check_expected(tensors: Mapping[str, np.ndarray], expected: Expected, where: str) -> None:
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    for what, names in (("is missing", missing), ("is not part of this model", extra)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{where}: tensor {_short(min(names))} {what}{more}")
    for key, (shape, dtype) in expected.items():
        got = tensors[key].shape, tensors[key].dtype
        if got != (tuple(shape), np.dtype(dtype)):
            raise CheckpointError(
                f"{where}: tensor {_short(key)} is {got[1]} {got[0]}, expected {np.dtype(dtype)} {tuple(shape)}"
            )


def _check_finite(tensor: np.ndarray, what: str, error: type[Exception]) -> None:
    if tensor.dtype.kind == "f" and not (finite := np.isfinite(tensor)).all():
        position = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise error(f"{what} holds {tensor[position]} at {list(position)}, expected finite numbers")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _dtype_list() -> str:
    return ", ".join(dtype.name for dtype in _DTYPE_NAMES)


def _short(value: object, limit: int = 60) -> str:
    text = value if limit > 60 and isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
