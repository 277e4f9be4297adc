"""A safe unpickler for plain containers.

A pickle is a program: its author chooses which functions the reader imports and calls. So `pickle`
is not used here. `pickletools` only disassembles the program, and `unpickle` interprets the
instructions that build dicts, lists, tuples, numbers and strings. The caller decides which
functions a program may call; attributes are never set. The result takes memory in proportion to the
size of the program, at most a hundred bytes per byte: an empty list is one byte in a pickle.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

from rmpe_jax.errors import UserError

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = ("BININT", "BINFLOAT", "BINUNICODE", "BINSTRING", "BINBYTES", "SHORT_BIN", "LONG1")


def unpickle(
    stream: io.BytesIO,
    find_global: Callable[[str, str], Any],
    persistent_load: Callable[[Any], Any],
) -> Any:
    """Interprets one pickle and leaves the stream at its end.

    Args:
      stream: a stream that is positioned at the start of a pickle.
      find_global: maps (module, name) to the stand-in for that global. A callable stand-in may be
        called with anything that the pickle can build.
      persistent_load: maps a persistent id to its object.

    Returns:
      The object.

    Raises:
      UserError: the pickle has an instruction that plain containers do not need.
      LookupError, TypeError, ValueError: the pickle is damaged.
    """
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
                _extend(stack[-1], [item])
            case "APPENDS":
                items = pop_marked()
                _extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_item(stack[-1], key, value)
            case "SETITEMS":
                items = pop_marked()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    set_item(stack[-1], key, value)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(find_global(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(find_global(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                stack.pop()  # Ignores attributes, such as the `_metadata` of a state dict.
            case "BINPERSID":
                stack.append(persistent_load(stack.pop()))
            case name if name.startswith(_LITERALS):
                stack.append(argument)
            case name:
                raise UserError(f"refused the pickle instruction {name}; save only plain dicts")
    return stack.pop()


def set_item(target: Any, key: Any, value: Any) -> None:
    """Sets `target[key]`. Raises `ValueError` unless target is a dict and key a string or int."""
    # Tuples are refused, because hashing one with a million levels would overflow the C stack.
    if type(target) is not dict or type(key) not in (str, int):
        raise ValueError("an item for something that is not a plain dict")
    target[key] = value


def _extend(target: Any, items: list) -> None:
    if type(target) is not list:
        raise ValueError("an item for something that is not a list")
    target.extend(items)


def _call(function: Any, arguments: Any) -> Any:
    if not callable(function) or type(arguments) is not tuple:
        raise ValueError("a call of something that is not a function")
    return function(*arguments)
