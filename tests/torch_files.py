"""Writes files in torch's format without torch, from pickle opcodes."""

import io
import struct
import zipfile

import jax
import numpy as np
from flax import traverse_util

from rmpe_jax.interop.torch_names import torch_key

# --- A small pickle assembler ---------------------------------------------------------------------


def literal(value) -> bytes:
    """Returns the opcodes that push a plain value; bytes are treated as opcodes."""
    match value:
        case bytes():
            return value
        case None | bool():
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(digits)]) + digits
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(literal, value)) + b"t"
        case list():
            return b"](" + b"".join(map(literal, value)) + b"e"
        case dict():
            items = (literal(x) for item in value.items() for x in item)
            return b"}(" + b"".join(items) + b"u"
    raise TypeError(value)


def named(name: str) -> bytes:
    """Returns the opcode that pushes the global `name`."""
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def call(name: str, *arguments) -> bytes:
    return named(name) + literal(arguments) + b"R"


def storage(key, total, kind="torch.FloatStorage", *view) -> bytes:
    return literal(("storage", named(kind), key, "cpu", total, *view)) + b"Q"


def tensor(from_storage: bytes, shape, stride, offset=0) -> bytes:
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2", from_storage, offset, shape, stride, False, hooks
    )


def program(content) -> bytes:
    return b"\x80\x02" + literal(content) + b"."


def zip_file(content, blobs, extra=(), compression=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(content))
        for name, data in extra:
            archive.writestr(f"archive/{name}", data)
        for key, data in blobs.items():
            archive.writestr(f"archive/data/{key}", np.asarray(data).tobytes())
    return stream.getvalue()


# --- State dicts ----------------------------------------------------------------------------------

_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def save_state(path, state, **beside) -> None:
    """Writes arrays like torch.save writes a state dict; broadcast axes store one element.

    With other entries `beside`, a training checkpoint that holds the arrays as `state_dict`.
    """
    content, blobs = {}, {}
    for key, array in state.items():
        without_repeats = tuple(slice(None) if step else slice(1) for step in array.strides)
        stored = np.array(array[without_repeats], order="C")
        strides = [
            stored_step // array.itemsize if step else 0
            for stored_step, step in zip(stored.strides, array.strides, strict=True)
        ]
        blobs[str(len(blobs))] = stored
        source = storage(str(len(content)), stored.size, f"torch.{_KINDS[array.dtype.name]}")
        content[key] = tensor(source, array.shape, tuple(strides))
    path.write_bytes(zip_file({**beside, "state_dict": content} if beside else content, blobs))


def torch_state(variables) -> dict[str, np.ndarray]:
    """Converts variables of our networks to torch's names and order of axes."""
    state = {}
    for path, leaf in traverse_util.flatten_dict(dict(variables)).items():
        key = torch_key(path[1:])
        if leaf.ndim == 4 and "deconv" in key:
            state[key] = leaf[::-1, ::-1].transpose(2, 3, 0, 1)
        else:
            state[key] = (
                leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T if leaf.ndim == 2 else leaf
            )
        if path[-1] == "mean":
            state[key.replace("running_mean", "num_batches_tracked")] = np.array(7)
    return state


def shapes_of(module, size=(64, 64)):
    """Returns the shapes of a network's variables."""
    return jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *size, 3), np.float32))


def zeros(module, size=(64, 64)):
    """Returns zero variables of a network, which take no memory."""
    shapes = shapes_of(module, size)
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)


def random_variables(module, seed=0, size=(64, 64)):
    """Returns random variables, including batch norm statistics, for outputs of moderate size."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        inputs = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 25
        return (inputs**-0.5 * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module, size))
