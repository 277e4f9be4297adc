"""What `train.py` and `eval.py` share: flags that fail in one line, errors that do too."""

import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from rmpe_jax.errors import UserError


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses absl flags; a wrong flag or config key ends the program with one line.

    For `absl.app.run(main, flags_parser=parse_flags)`.
    """
    try:
        rest = flags.FLAGS(list(argv))
        if "config" in flags.FLAGS:
            getattr(flags.FLAGS.config, "lock", None)  # a file that is not there is said only here
        return rest
    except flags.Error as error:
        _fail(f"{_gist(error)}; {argv[0]} --help shows the flags")
    except UserError as error:
        _fail(str(error))
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        # What ml_collections raises for a config file or an override that cannot be used.
        _fail(f"config: {_gist(error)}")
    raise AssertionError  # `_fail` does not return


def _gist(error: Exception) -> str:
    """An error's text in one line; of a traceback in it only the end."""
    text = str(error.args[0] if error.args else error).strip()
    if isinstance(error, AttributeError | KeyError):
        # ml_collections' text for a key that is not there, quoted and escaped once or twice.
        plain = re.sub(r"[\"'\\\n]", "", text.replace("\\n", " "))
        if key := re.match(r"(?:Key )?(\w+)( does not exist and cannot| ?Did you mean|$)", plain):
            near = re.search(r"Did you mean (\w+)", plain)
            hint = f"did you mean {near[1]!r}?" if near else "rmpe_jax/config.py has all"
            return f"there is no key {key[1]!r}: {hint}"
    last = text.splitlines()[-1]
    if isinstance(error, OSError):  # reasons within reasons
        return last
    before, traceback, _ = text.partition("Traceback")
    return before + last if traceback else text


def _fail(line: str) -> None:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(1)


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next run starts without compiling.

    In `$JAX_COMPILATION_CACHE_DIR`, or in the user's cache folder.
    """
    import jax

    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache / "rmpe_jax"))
    jax.config.update("jax_compilation_cache_dir", folder)


def _quiet_libraries() -> None:
    """What matters of all this comes back as an exception too, which is said in one line."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax, Grain
    logging.getLogger("jax").setLevel(logging.WARNING)  # else it names each backend it lacks

    def unraisable(found: Any) -> None:
        # Once a write of Orbax has failed, the other ones of that save find their loop closed.
        if str(found.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(found)

    sys.unraisablehook = unraisable


def run(main: Callable[[], None]) -> int:
    """Runs `main`; a `UserError` becomes one line on stderr and the exit status 1."""
    _quiet_libraries()
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
