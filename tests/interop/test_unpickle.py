import io
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.interop.unpickle import unpickle

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=300)
)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=30,
)


def refuse(*names):
    raise AssertionError(f"a plain pickle asked for {names}")


@given(value=PLAIN, protocol=st.sampled_from([3, 4, 5]))
def test_plain_containers_as_pickle_reads_them(value, protocol):
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
    assert unpickle(stream, refuse, refuse) == value
    assert stream.read() == b"rest"


def test_shared_objects_stay_shared():
    inner = [1]
    value = unpickle(io.BytesIO(pickle.dumps([inner, inner])), refuse, refuse)
    assert value == [[1], [1]]
    assert value[0] is value[1]


def test_globals_and_persistent_ids_are_the_callers():
    program = b"\x80\x02cos.path\njoin\nU\x01aU\x01b\x86R."
    found = unpickle(io.BytesIO(program), lambda *names: lambda *args: (names, args), refuse)
    assert found == (("os.path", "join"), ("a", "b"))
    assert unpickle(io.BytesIO(b"\x80\x02K\x07Q."), refuse, lambda key: key + 1) == 8


@pytest.mark.parametrize("value", [{1, 2}, frozenset([1]), bytearray(b"x")])
def test_other_instructions_are_refused(value):
    with pytest.raises(UserError, match="refused the pickle instruction"):
        unpickle(io.BytesIO(pickle.dumps(value, 5)), refuse, refuse)


def test_text_protocol_is_refused():
    with pytest.raises(UserError, match="refused the pickle instruction"):
        unpickle(io.BytesIO(pickle.dumps([1, "a"], 0)), refuse, refuse)
