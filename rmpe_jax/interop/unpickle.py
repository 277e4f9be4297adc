"""The part of the pickle language that plain containers need, with nothing to execute.

A pickle is a program: whoever wrote it chooses which functions its reader imports and calls. So
`pickle` is not used here. `pickletools` only disassembles the program, and `unpickle` plays the
instructions that build dicts, lists, tuples, numbers and strings. What a program may call is the
caller's choice; attributes are never set. What the instructions build takes memory in proportion to
the program's size, at most a hundred bytes for each of its own: an empty list is one byte there.
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
    """Plays one pickle and leaves the stream behind it.

    Args:
      stream: Where the pickle starts.
      find_global: Gives the stand-in for what the pickle calls `module`, `name`. A stand-in that
        is callable may be called with anything that the pickle can build.
      persistent_load: Gives the object of a persistent id.

    Raises:
      UserError: for an instruction that plain containers do not need.
      LookupError, TypeError, ValueError: for a damaged pickle.
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
                stack.pop()  # Attributes, such as a state dict's `_metadata`, are not wanted.
            case "BINPERSID":
                stack.append(persistent_load(stack.pop()))
            case name if name.startswith(_LITERALS):
                stack.append(argument)
            case name:
                raise UserError(f"refused the pickle instruction {name}; save plain dicts, no code")
    return stack.pop()


def set_item(target: dict, key: str | int, value: Any) -> None:
    """Sets `target[key]`. Raises `ValueError` for anything but a plain dict and a plain key."""
    # Hashing a tuple that is nested a million deep would overflow the C stack: no tuples.
    if type(target) is not dict or type(key) not in (str, int):
        raise ValueError("an item of what is no plain dict")
    target[key] = value


def _extend(target: list, items: list) -> None:
    if type(target) is not list:
        raise ValueError("an item of what is no list")
    target.extend(items)


def _call(function: Callable, arguments: tuple) -> Any:
    if not callable(function) or type(arguments) is not tuple:
        raise ValueError("a call of what is no function")
    return function(*arguments)
