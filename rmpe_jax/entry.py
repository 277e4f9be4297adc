"""What `rmpe train` and `rmpe eval` share: flags and errors that end in one line."""

import functools
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags

from rmpe_jax.config import renamed
from rmpe_jax.errors import UserError


def run_app(main: Callable[[], None], module: str) -> NoReturn:
    """Runs a command whose flags are absl's, and ends the program.

    Args:
      main: called once the flags are parsed.
      module: name of the module whose docstring and flags `--help` prints.
    """
    parse = functools.partial(parse_flags, module=module)
    app.run(lambda _: run(main), flags_parser=parse)
    raise AssertionError  # `app.run` does not return


def parse_flags(argv: Sequence[str], module: str = "") -> list[str]:
    """Parses absl flags; a wrong flag or config key ends the program with one line.

    `--flip-test` and `--flip_test` are the same flag. Old names of config keys are replaced.
    """
    if {"--help", "-h", "-help", "--helpshort"} & set(argv[1:]):
        print(f"{sys.modules[module].__doc__}\n{flags.FLAGS.module_help(module)}")
        sys.exit(0)
    argv = [argv[0], *map(_present_name, argv[1:])]
    sys.argv[1:] = argv[1:]  # ml_collections looks there for --config.KEY=VALUE
    try:
        rest = flags.FLAGS(list(argv))
        if "config" in flags.FLAGS:
            getattr(flags.FLAGS.config, "lock", None)  # a missing file is reported only here
        return rest
    except flags.Error as error:
        _fail(f"{_gist(error)}; {argv[0]} --help shows the flags")
    except UserError as error:
        _fail(str(error))
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        # What ml_collections raises for a config file or an override that cannot be used.
        _fail(f"config: {_gist(error)}")
    raise AssertionError  # `_fail` does not return


def _present_name(argument: str) -> str:
    """A flag by its present name: dashes as underscores, config keys as they are called now."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    name = "--" + name[2:].replace("-", "_")
    section = name.removeprefix("--config.")
    if section in renamed.KEYS:
        renamed.warn(name, f"--config.{renamed.KEYS[section]}")
        name = f"--config.{renamed.KEYS[section]}"
    return name + equals + value


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
