"""Reads PyTorch's weight files (`.pth`, `.pt`) without torch and without executing their code.

Both layouts of `torch.save` are supported: the zip archive of torch >= 1.6 (`data.pkl`, and an
entry `data/KEY` per storage), and the stream of older versions (magic number, protocol, system,
object, storage keys, storages). Their pickles can only call the functions in `_ALLOWED_GLOBALS`
below, which copy sizes into tuples. Afterwards the arrays are created as views of the storages.
"""

import functools
import io
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rmpe_jax.errors import UserError
from rmpe_jax.files import failed_download
from rmpe_jax.interop.unpickle import set_item, unpickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
_ZIP_ENTRY, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"  # signatures
_MAX_ZIP_END = 22 + 2**16  # bytes: the end of an archive, with the longest comment
_MAX_SAFETENSORS_HEADER = 100_000_000  # bytes, the limit of the format
_STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
}
_DTYPES = {
    name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for name in [*_STORAGES.values(), "uint16", "uint32", "uint64"]
}
_NUMPY_BUILDERS = ("_reconstruct", "scalar")
# Errors that damaged bytes cause in zipfile, pickletools and NumPy, or by an empty stack.
_ERRORS_OF_DAMAGED_FILES = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


class _Storage(NamedTuple):
    """Elements `offset` to `offset + size` of the `total` elements that are stored under `key`."""

    key: str
    dtype: str
    total: int
    offset: int
    size: int


class _Tensor(NamedTuple):
    """A strided view of a storage; offset and strides count elements."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch state dict.

    In a training checkpoint, this is the dict under `state_dict` or `model`. Entries that are not
    tensors are ignored, and the prefix `module.` of `DataParallel` is removed. No code of the file
    is executed: files with anything but tensors in plain containers are refused, except for NumPy
    arrays and the logs of mmengine beside the weights, which are left out.

    Args:
      path: a `.pth` file, as written by `torch.save(model.state_dict(), path)`.

    Returns:
      Arrays by parameter name, with the order, axis order and dtype of the file (`bfloat16` is
      `ml_dtypes.bfloat16`). They are read-only; tied weights share memory.

    Raises:
      UserError: the file is missing, damaged, not a PyTorch file, or holds other objects. Files
        of similar kinds, such as safetensors and TorchScript, are named.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a .pth file") from error
    if what := failed_download(data) or _other_format(data):
        raise UserError(f"{path} is {what}")
    try:
        content, read_storage = _open_zip(data) if data[:2] == b"PK" else _open_legacy(data)
        return _state_dict(content, read_storage)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except _ERRORS_OF_DAMAGED_FILES as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{path}: damaged or not a PyTorch file ({reason}); download it or save it again"
        ) from error


def _other_format(data: bytes) -> str:
    """What a file is that is easily taken for a weight file of PyTorch, and what to do."""
    if data[8:9] == b"{" and 0 < int.from_bytes(data[:8], "little") < _MAX_SAFETENSORS_HEADER:
        if b'"rmpe_jax":' in data[: 8 + int.from_bytes(data[:8], "little")]:
            return "a model file of rmpe_jax: use it as it is"
        return "a safetensors file, not a .pth file: save its tensors with torch.save"
    if data[:4] == _ZIP_ENTRY and _ZIP_END not in data[-_MAX_ZIP_END:]:
        return f"cut off after {len(data):,} bytes: download it again"
    return ""


def _state_dict(content: Any, read_storage: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict, or of the state dict in a training checkpoint."""
    entries = content if type(content) is dict else {}
    for key in ("state_dict", "model"):
        if type(entries.get(key)) is dict:
            entries = entries[key]
    tensors = {
        name: value
        for name, value in entries.items()
        if isinstance(name, str) and isinstance(value, _Tensor)
    }
    if not tensors:
        raise UserError("holds no state dict; save one with torch.save(model.state_dict(), path)")
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {
        name.removeprefix(prefix): _make_array(value, read_storage)
        for name, value in tensors.items()
    }


def _make_array(tensor: _Tensor, read_storage: Callable[[str], bytes]) -> np.ndarray:
    """Returns the tensor as a view of its storage; NumPy checks that it lies within the storage."""
    storage, dtype = tensor.storage, _DTYPES[tensor.dtype]
    raw, itemsize = read_storage(storage.key), _DTYPES[storage.dtype].itemsize
    start, end = storage.offset * itemsize, (storage.offset + storage.size) * itemsize
    if len(raw) != storage.total * itemsize or end > len(raw):
        raise ValueError(f"storage {storage.key[:40]!r} has {len(raw)} bytes, not as declared")
    if 0 in tensor.shape:
        return np.empty(tensor.shape, dtype)
    strides = [step * dtype.itemsize for step in tensor.stride]
    view = memoryview(raw)[start:end]
    return np.ndarray(tensor.shape, dtype, view, tensor.offset * dtype.itemsize, strides)


def _open_zip(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """Returns the object in an archive of torch >= 1.6, and a function that reads its storages."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise UserError(
            "a TorchScript program, which is code with its weights; save only the weights with "
            "torch.save(module.state_dict(), path)"
        )
    # torch does not compress. Compressed or overlapping entries could fill the memory.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed entries")
    if sum(entry.file_size for entry in entries) > len(data):
        raise ValueError("entries that are larger than the file")
    pickles = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip archive without data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") == b"big":
        raise UserError("saved big-endian; save it again on a little-endian machine")
    content = unpickle(io.BytesIO(archive.read(pickles[0])), _find_global, _parse_storage)
    return content, functools.cache(lambda key: archive.read(f"{folder}data/{key}"))


def _open_legacy(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """Returns the object in a stream of torch < 1.6, and a function that reads its storages."""
    stream = io.BytesIO(data)
    storages: dict[str, _Storage] = {}

    def load(persistent_id: Any) -> _Storage:
        storage = _parse_storage(persistent_id)
        storages.setdefault(storage.key, storage)
        return storage

    if data[257:262] == b"ustar":
        raise UserError("a tar file of torch before 0.1.10; load and save it with a newer torch")
    if _LEGACY_MAGIC not in data[:32]:
        raise ValueError("neither a zip archive nor the magic number")
    for _ in ("magic number", "protocol version", "system"):
        unpickle(stream, _find_global, load)  # Storages are little-endian on every system.
    content = unpickle(stream, _find_global, load)
    keys = unpickle(stream, _find_global, load)
    _check_names(*keys)
    blobs = {}
    for key in keys:
        (size,) = struct.unpack("<q", stream.read(8))
        if size != storages[key].total:
            raise ValueError(f"storage {key[:40]!r} has {size} elements, not as declared")
        blobs[key] = stream.read(size * _DTYPES[storages[key].dtype].itemsize)
    return content, blobs.__getitem__


def _parse_storage(persistent_id: Any) -> _Storage:
    """Parses `("storage", type, key, device, size[, None or (view key, offset, size)])`."""
    kind, dtype, key, _, total, *view = persistent_id
    _, offset, size = view[0] if view and view[0] else (None, 0, total)
    _check_names(kind, dtype, key)
    if kind != "storage" or dtype not in _DTYPES:
        raise ValueError("an invalid storage")
    return _Storage(key, dtype, *_checked_sizes((total, offset, size)))


def _check_names(*values: Any) -> None:
    if not all(type(value) is str for value in values):
        raise ValueError("a name that is not a string")


def _checked_sizes(values: Any) -> tuple[int, ...]:
    # NumPy allows 64 axes. The limit also keeps many copies of one long list from filling memory.
    if len(values) > 64 or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("an invalid size, offset or stride")
    return tuple(values)


# The functions that pickles may call. Their arguments can be anything, so they have no annotations.


def _rebuild_tensor(storage, offset, shape, stride) -> _Tensor:
    if type(storage) is not _Storage or len(shape) != len(stride):
        raise ValueError("an invalid tensor")
    (start,) = _checked_sizes((offset,))
    return _Tensor(storage, storage.dtype, start, _checked_sizes(shape), _checked_sizes(stride))


def _rebuild_tensor_v2(storage, offset, shape, stride, grad, hooks, bits=None) -> _Tensor:
    if bits:
        raise UserError("holds a lazily conjugated tensor; save tensor.resolve_conj() instead")
    return _rebuild_tensor(storage, offset, shape, stride)


def _rebuild_tensor_v3(storage, offset, shape, stride, grad, hooks, dtype, bits=None) -> _Tensor:
    tensor = _rebuild_tensor_v2(storage, offset, shape, stride, grad, hooks, bits)
    _check_names(dtype)
    return tensor._replace(dtype=dtype)


def _rebuild_parameter(tensor, *_) -> Any:
    return tensor


def _ordered_dict(*pairs: Any) -> dict:
    """Stands for `OrderedDict`. Python 2 pickles it with its items, Python 3 sets them later."""
    content = {}
    for items in pairs:
        if type(items) is not list:
            raise ValueError("an invalid OrderedDict")
        for key, value in items:
            set_item(content, key, value)
        items.clear()  # So calls with the same long list cannot fill the memory with copies.
    return content


def _left_out(*_: Any) -> None:
    """Stands for what training tools store beside the weights: it is not built, nothing runs."""


_LEFT_OUT = (
    # NumPy arrays and numbers, as in the `meta` of mmpose 1.x. Pickles hold bytes as text.
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in _NUMPY_BUILDERS),
    *("numpy.ndarray", "numpy.dtype", "_codecs.encode"),
    # mmengine's logs, which refer to their methods by `getattr`.
    "mmengine.logging.history_buffer.HistoryBuffer",
    *("builtins.getattr", "__builtin__.getattr"),
)
_ALLOWED_GLOBALS = {
    **dict.fromkeys(_LEFT_OUT, _left_out),
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _checked_sizes,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.storage.UntypedStorage": "uint8",
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{f"torch.{name}": name for name in _DTYPES},
}


def _find_global(module: str, name: str) -> Any:
    """Returns the stand-in for a global of torch: a function of this module or a dtype's name."""
    _check_names(module, name)
    full_name = f"{module}.{name}"
    if full_name not in _ALLOWED_GLOBALS:
        raise UserError(
            f"refused to load {full_name[:80]!r}, which is not part of a tensor; "
            "save only the weights with torch.save(model.state_dict(), path)"
        )
    return _ALLOWED_GLOBALS[full_name]
