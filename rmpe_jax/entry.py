"""What `rmpe train` and `rmpe eval` share: absl flags, one-line errors, the compilation cache."""

import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

from rmpe_jax.arguments import warn_renamed
from rmpe_jax.config import renamed
from rmpe_jax.errors import UserError


def run_app(main: Callable[[], None], module: str) -> NoReturn:
    """Runs a command with absl flags, and exits.

    Args:
      main: called after the flags are parsed.
      module: name of the module whose docstring and flags `--help` prints.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        _log_plain_lines()
        return parse_flags(argv, module)

    app.run(lambda _: run(main), flags_parser=parse)
    raise AssertionError  # `app.run` does not return


def parse_flags(argv: Sequence[str], module: str = "") -> list[str]:
    """Parses absl flags; an invalid flag or config key exits with one line.

    `--flip-test` and `--flip_test` are the same flag. Old names of config keys are replaced, and
    one line on stderr gives the new name.

    Args:
      argv: the command line with the name of the program.
      module: as of `run_app`.

    Returns:
      The arguments that are not flags, after the name of the program.

    Raises:
      SystemExit: after `--help`, or after an error.
    """
    if {"--help", "-h", "-help", "--helpshort"} & set(argv[1:]):
        print(f"{sys.modules[module].__doc__}\n{_flags_help(module)}")
        sys.exit(0)
    argv = [argv[0], *map(_present_name, argv[1:])]
    sys.argv[1:] = argv[1:]  # ml_collections reads --config.KEY=VALUE from there
    try:
        rest = flags.FLAGS(list(argv))
        if "config" in flags.FLAGS:
            getattr(flags.FLAGS.config, "lock", None)  # loads the file, which may be missing
        return rest
    except flags.Error as error:
        _fail(f"{_gist(error)}; {argv[0]} --help shows the flags")
    except UserError as error:
        _fail(str(error))
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        # ml_collections raises these for an invalid config file or override.
        _fail(f"config: {_gist(error)}")
    raise AssertionError  # `_fail` does not return


def _flags_help(module: str) -> str:
    """The help of a module's flags, with dashes as in the documentation."""
    _, *lines = flags.FLAGS.module_help(module).strip().splitlines()
    text = "\n".join(["flags:", *lines])
    return re.sub(r"(?<=--)(\[no\])?[a-z_]+", lambda name: name[0].replace("_", "-"), text)


def _present_name(argument: str) -> str:
    """A flag with underscores instead of dashes, and the present name of a config key."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    name = "--" + name[2:].replace("-", "_")
    section = name.removeprefix("--config.")
    if section in renamed.KEYS:
        warn_renamed(name, f"--config.{renamed.KEYS[section]}")
        name = f"--config.{renamed.KEYS[section]}"
    return name + equals + value


def _gist(error: Exception) -> str:
    """The text of an error without tracebacks, except for their last line."""
    text = str(error.args[0] if error.args else error).strip()
    if isinstance(error, AttributeError | KeyError):
        # ml_collections' message about a missing key, quoted and escaped once or twice.
        plain = re.sub(r"[\"'\\\n]", "", text.replace("\\n", " "))
        if key := re.match(r"(?:Key )?(\w+)( does not exist and cannot| ?Did you mean|$)", plain):
            near = re.search(r"Did you mean (\w+)", plain)
            hint = f"did you mean {near[1]!r}?" if near else "see rmpe_jax/config/sections.py"
            return f"there is no key {key[1]!r}: {hint}"
    last = text.splitlines()[-1]
    if isinstance(error, OSError):  # nested causes, one per line
        return last
    before, traceback, _ = text.partition("Traceback")
    return before + last if traceback else text


def _fail(line: str) -> None:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(1)


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next run does not compile them again.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or `rmpe_jax` in the user's cache folder.
    """
    import jax

    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache / "rmpe_jax"))
    jax.config.update("jax_compilation_cache_dir", folder)
    # By default JAX keeps only what took a second to compile.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _log_plain_lines() -> None:
    """Logs warnings as plain lines on stderr instead of absl's format, as `rmpe` does."""
    logging.getLogger().removeHandler(absl_logging.get_absl_handler())
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


def _quiet_libraries() -> None:
    """Silences logs of libraries; important errors are also raised, and reported in one line."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax, Grain
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # further failed writes of Orbax
    logging.getLogger("jax").setLevel(logging.WARNING)  # INFO lists each missing backend

    def unraisable(found: Any) -> None:
        # After a failed write of Orbax, the other writes of that save find their loop closed.
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
