"""PyTorch's weight files (`.pth`, `.pt`) read without torch and without running what they hold.

A `.pth` file is a pickle beside raw storages, and a pickle is a program: whoever wrote it chooses
which functions the reader calls. So no `pickle` here. `pickletools` only *disassembles* the
program, and `_unpickle` plays the few instructions that building a dict of tensors takes. The only
things it can call are the functions of `_CALLABLES` below; they copy numbers into tuples.

Both layouts are read: the zip archive of torch >= 1.6 (`data.pkl`, one entry `data/KEY` for each
storage) and the stream of older versions (magic number, protocol, system, object, keys, storages).
"""

import functools
import io
import math
import os
import pathlib
import pickletools
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rmpe_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
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
    "UntypedStorage": "uint8",
}
_DTYPES = {
    name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for name in [*_STORAGES.values(), "uint16", "uint32", "uint64"]
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
    ]
)


class _Storage(NamedTuple):
    """Elements `offset` to `offset + size` of the `total` elements stored under `key`."""

    key: str
    dtype: str
    total: int
    offset: int
    size: int


class _Tensor(NamedTuple):
    """A strided view into a storage; offset and strides count elements."""

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
      Arrays by parameter name, in the file's order, in torch's axis order and the file's dtype
      (`bfloat16` as `ml_dtypes.bfloat16`). They are read-only; tied weights share memory.

    Raises:
      UserError: if the file is missing, damaged, not a PyTorch file, or holds other objects.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a .pth file")
    try:
        data = path.read_bytes()
        content, read = _open_zip(data) if data[:2] == b"PK" else _open_legacy(data)
        return _state_dict(content, read)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (
        # What damaged bytes make of zipfile, pickletools, NumPy and a stack that runs empty.
        *(ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
        *(TypeError, ValueError, struct.error, zipfile.BadZipFile),
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: damaged or not a PyTorch file ({reason}); download or save it again"
        ) from error


def _state_dict(content: Any, read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The arrays of a state dict, or of the state dict within a training checkpoint."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in entries if isinstance(value, _Tensor)}
    if not tensors:
        raise UserError("holds no state dict; save one with torch.save(model.state_dict(), path)")
    names = [str(name) for name in tensors]
    if all(name.startswith("module.") for name in names):
        names = [name.removeprefix("module.") for name in names]
    return {
        name: _array(tensor, read) for name, tensor in zip(names, tensors.values(), strict=True)
    }


def _array(tensor: _Tensor, read: Callable[[str], bytes]) -> np.ndarray:
    """The view of the storage's bytes; NumPy checks that it lies within them."""
    storage, dtype = tensor.storage, _DTYPES[tensor.dtype]
    raw, itemsize = read(storage.key), _DTYPES[storage.dtype].itemsize
    if len(raw) != storage.total * itemsize or storage.offset + storage.size > storage.total:
        raise ValueError(f"storage {storage.key[:40]!r} has {len(raw)} bytes, not as announced")
    if math.prod(tensor.shape) == 0:
        return np.empty(tensor.shape, dtype)
    return np.ndarray(
        tensor.shape,
        dtype,
        memoryview(raw)[storage.offset * itemsize : (storage.offset + storage.size) * itemsize],
        tensor.offset * dtype.itemsize,
        [step * dtype.itemsize for step in tensor.stride],
    )


def _open_zip(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """The object in an archive of torch >= 1.6, and the reader of its storages by key."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    # torch stores without compression; a bomb would have to compress, or let its entries overlap.
    if sum(entry.file_size for entry in entries) > len(data):
        raise ValueError("its entries are larger than the file")
    pickles = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip archive without data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") == b"big":
        raise UserError("saved big-endian; save it again on a little-endian machine")
    content = _unpickle(io.BytesIO(archive.read(pickles[0])), _storage)
    return content, functools.cache(lambda key: archive.read(f"{folder}data/{key}"))


def _open_legacy(data: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """The object in a stream of torch < 1.6, and the reader of its storages by key."""
    stream = io.BytesIO(data)
    storages: dict[str, _Storage] = {}

    def storage(persistent_id: Any) -> _Storage:
        found = _storage(persistent_id)
        return storages.setdefault(found.key, found) and found

    if [_unpickle(stream), _unpickle(stream)] != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
        raise ValueError("no magic number")
    _unpickle(stream)  # Byte order and type sizes of the writer; storages are little-endian.
    content = _unpickle(stream, storage)
    blobs = {}
    for key in _unpickle(stream):
        (size,) = struct.unpack("<q", stream.read(8))
        if size != storages[key].total:
            raise ValueError(f"storage {key[:40]!r} has {size} elements, not as announced")
        blobs[key] = stream.read(size * _DTYPES[storages[key].dtype].itemsize)
    return content, blobs.__getitem__


def _storage(persistent_id: Any) -> _Storage:
    """Checks `("storage", type, key, device, size[, (view key, offset, size) or None])`."""
    kind, dtype, key, _, total, *view = persistent_id
    _, offset, size = view[0] if view and view[0] else (None, 0, total)
    if kind != "storage" or dtype not in _DTYPES or not isinstance(key, str):
        raise ValueError("an odd storage")
    return _Storage(key, dtype, *_counts((total, offset, size)))


def _counts(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("a size, offset or stride that is no count")
    return tuple(values)


def _rebuild_tensor(storage, offset, shape, stride, *_) -> _Tensor:
    if not isinstance(storage, _Storage) or len(shape) != len(stride):
        raise ValueError("an odd tensor")
    return _Tensor(storage, storage.dtype, *_counts((offset,)), _counts(shape), _counts(stride))


def _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks, bits=None) -> _Tensor:
    if bits:
        raise UserError("holds a lazily conjugated tensor; save tensor.resolve_conj() instead")
    return _rebuild_tensor(storage, offset, shape, stride)


def _rebuild_tensor_v3(storage, offset, shape, stride, requires_grad, hooks, dtype, bits=None):
    return _rebuild_tensor_v2(storage, offset, shape, stride, None, None, bits)._replace(
        dtype=dtype
    )


def _rebuild_parameter(tensor, *_) -> Any:
    return tensor


def _ordered_dict(pairs=()) -> dict:
    return _set_items({}, [item for pair in pairs for item in pair])


_CALLABLES: dict[str, Callable] = {
    "collections OrderedDict": _ordered_dict,
    "torch Size": tuple,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils _rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch._utils _rebuild_parameter_with_state": _rebuild_parameter,
}
_GLOBALS = {
    **_CALLABLES,
    **{f"torch {name}": dtype for name, dtype in _STORAGES.items()},
    **{f"torch {name}": name for name in _DTYPES},
    "torch.storage UntypedStorage": "uint8",
}


def _global(name: str) -> Any:
    """What `"module name"` stands for here: one of our functions, or the name of a dtype."""
    if name not in _GLOBALS:
        raise UserError(
            f"refused to load {name.replace(' ', '.')[:80]!r}, which is no part of a tensor; "
            "save the weights alone with torch.save(model.state_dict(), path)"
        )
    return _GLOBALS[name]


def _call(function: Any, arguments: Any) -> Any:
    if not callable(function) or not isinstance(arguments, tuple):
        raise ValueError("a call of what is no function")
    return function(*arguments)


def _set_items(target: Any, items: list) -> dict:
    keys = items[::2]
    # Hashing a tuple nested a million deep would overflow the C stack, so no tuples.
    if not isinstance(target, dict) or not all(type(key) in (str, int) for key in keys):
        raise ValueError("an odd dict")
    target.update(zip(keys, items[1::2], strict=True))
    return target


def _no_storage(persistent_id: Any) -> _Storage:
    raise ValueError("a storage where none belongs")


def _unpickle(stream: io.BytesIO, storage: Callable[[Any], _Storage] = _no_storage) -> Any:
    """Plays one pickle from `stream` up to its STOP; `storage` makes sense of persistent ids."""
    stack, marks, memo = [], [], {}

    def pop_marked() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for op, argument, _ in pickletools.genops(stream):
        match op.name:
            case "STOP":
                break
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[op.name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(pop_marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(op.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                item = stack.pop()
                stack[-1] += [item]
            case "APPENDS":
                items = pop_marked()
                stack[-1] += items
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = pop_marked()
                _set_items(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(f"{module} {name}"))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                stack.pop()  # Attributes, such as a state dict's `_metadata`, are not needed.
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case name if name in _LITERALS:
                stack.append(argument)
            case name:
                raise UserError(f"refused the pickle instruction {name}, which no state dict needs")
    return stack.pop()
