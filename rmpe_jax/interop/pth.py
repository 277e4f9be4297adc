"""PyTorch's weight files (`.pth`, `.pt`) read without torch and without running what they hold.

Both layouts of `torch.save` are read: the zip archive of torch >= 1.6 (`data.pkl`, and an entry
`data/KEY` for each storage), and the stream of older versions (magic number, protocol, system,
object, storage keys, storages). Their pickles can call nothing but the functions of `_GLOBALS`
below, which copy counts into tuples; arrays are made after that, as views of the storages.
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
from rmpe_jax.interop.unpickle import set_item, unpickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
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
# What damaged bytes make of zipfile, pickletools, NumPy, and of a stack that runs empty.
_DAMAGE = (
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
    """Elements `offset` to `offset + size` of the `total` elements stored under `key`."""

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

    Of a training checkpoint, the dict under `state_dict` or `model` is taken. Entries that are not
    tensors are left out, and the prefix `module.` of `DataParallel` is taken off. No code of the
    file is executed: anything but tensors in plain containers is refused.

    Args:
      path: A `.pth` file, as `torch.save(model.state_dict(), path)` writes it.

    Returns:
      Arrays by parameter name, in the file's order, axis order and dtype (`bfloat16` is
      `ml_dtypes.bfloat16`). They are read-only; tied weights share memory.

    Raises:
      UserError: if the file is missing, damaged, no PyTorch file, or holds other objects.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a .pth file") from error
    try:
        content, read = _open_zip(data) if data[:2] == b"PK" else _open_legacy(data)
        return _state_dict(content, read)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{path}: damaged or no PyTorch file ({reason}); download it or save it again"
        ) from error


def _state_dict(content: Any, read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The arrays of a state dict, or of the state dict within a training checkpoint."""
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
    return {name.removeprefix(prefix): _array(value, read) for name, value in tensors.items()}


def _array(tensor: _Tensor, read: Callable[[str], bytes]) -> np.ndarray:
    """The tensor as a view of its storage's bytes; NumPy checks that it lies within them."""
    storage, dtype = tensor.storage, _DTYPES[tensor.dtype]
    raw, itemsize = read(storage.key), _DTYPES[storage.dtype].itemsize
    start, end = storage.offset * itemsize, (storage.offset + storage.size) * itemsize
    if len(raw) != storage.total * itemsize or end > len(raw):
        raise ValueError(f"storage {storage.key[:40]!r} has {len(raw)} bytes, not as announced")
    if 0 in tensor.shape:
        return np.empty(tensor.shape, dtype)
    strides = [step * dtype.itemsize for step in tensor.stride]
    view = memoryview(raw)[start:end]
    return np.ndarray(tensor.shape, dtype, view, tensor.offset * dtype.itemsize, strides)


def _open_zip(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """The object in an archive of torch >= 1.6, and the reader of its storages by key."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    # torch does not compress. Entries that inflate or overlap could fill the memory.
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
    content = unpickle(io.BytesIO(archive.read(pickles[0])), _find_global, _storage)
    return content, functools.cache(lambda key: archive.read(f"{folder}data/{key}"))


def _open_legacy(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """The object in a stream of torch < 1.6, and the reader of its storages by key."""
    stream = io.BytesIO(data)
    storages: dict[str, _Storage] = {}

    def load(persistent_id: Any) -> _Storage:
        storage = _storage(persistent_id)
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
            raise ValueError(f"storage {key[:40]!r} has {size} elements, not as announced")
        blobs[key] = stream.read(size * _DTYPES[storages[key].dtype].itemsize)
    return content, blobs.__getitem__


def _storage(persistent_id: Any) -> _Storage:
    """Reads `("storage", type, key, device, size[, None or (view key, offset, size)])`."""
    kind, dtype, key, _, total, *view = persistent_id
    _, offset, size = view[0] if view and view[0] else (None, 0, total)
    _check_names(kind, dtype, key)
    if kind != "storage" or dtype not in _DTYPES:
        raise ValueError("an odd storage")
    return _Storage(key, dtype, *_counts((total, offset, size)))


def _check_names(*values: Any) -> None:
    if not all(type(value) is str for value in values):
        raise ValueError("a name that is no string")


def _counts(values: Any) -> tuple[int, ...]:
    # No tensor has more axes than NumPy allows, so copies of a long list cannot pile up.
    if len(values) > 64 or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("an odd size, offset or stride")
    return tuple(values)


def _rebuild_tensor(storage, offset, shape, stride) -> _Tensor:
    if type(storage) is not _Storage or len(shape) != len(stride):
        raise ValueError("an odd tensor")
    (start,) = _counts((offset,))
    return _Tensor(storage, storage.dtype, start, _counts(shape), _counts(stride))


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


def _ordered_dict(*pairs: list) -> dict:
    """An `OrderedDict`; Python 2 pickled it with its items, Python 3 sets them afterwards."""
    content = {}
    for items in pairs:
        if type(items) is not list:
            raise ValueError("an odd OrderedDict")
        for key, value in items:
            set_item(content, key, value)
        items.clear()  # Each list is used once, so copies of a long one cannot pile up.
    return content


_GLOBALS = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _counts,
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
    """What stands here for a global of torch: one of our functions, or the name of a dtype."""
    _check_names(module, name)
    full_name = f"{module}.{name}"
    if full_name not in _GLOBALS:
        raise UserError(
            f"refused to load {full_name[:80]!r}, which is no part of a tensor; "
            "save the weights alone with torch.save(model.state_dict(), path)"
        )
    return _GLOBALS[full_name]
