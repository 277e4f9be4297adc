import sys
import types

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from rmpe_jax import entry
from rmpe_jax.errors import UserError

CONFIG = """
import ml_collections

def get_config(argument="3"):
    config = ml_collections.ConfigDict()
    config.steps = int(argument)
    config.name = "a"
    config.size = (4, 5)
    config.optim = ml_collections.ConfigDict({"learning_rate": 0.5})
    config.lock()
    return config
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Separate flags, as of a program with --config and --workdir."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder.", flag_values=values, required=True)
    config_flags.DEFINE_config_file("config", None, "Config.", flag_values=values)
    flags.mark_flag_as_required("config", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    (tmp_path / "config.py").write_text(CONFIG)

    def parse(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])  # read by ml_collections
        return entry.parse_flags(sys.argv)

    return types.SimpleNamespace(
        flags=values, config=str(tmp_path / "config.py"), folder=tmp_path, parse=parse
    )


def test_valid_flags(program):
    rest = program.parse(
        f"--config={program.config}:7", "--workdir=w", "--config.size=(1,2)", "more"
    )
    assert rest == ["train.py", "more"]
    assert program.flags.workdir == "w"
    assert program.flags.config.steps == 7
    assert program.flags.config.size == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--config={config}", "--workdir=w", "--config.optim.lrr=1"],
            ["no key 'lrr'", "see rmpe_jax/config/sections.py"],
        ),
        (
            ["--config={config}", "--workdir=w", "--config.optim.learning_rat=1"],
            ["no key 'learning_rat': did you mean 'learning_rate'?"],
        ),
        (["--config={config}", "--workdir=w", "--config.steps=many"], ["steps", "many"]),
        (["--config={config}", "--workdir=w", "--config.steps=2.5"], ["steps", "2.5"]),
        (["--config={config}", "--workdir=w", "--config.stepz=7"], ["did you mean 'steps'?"]),
        (["--config={config}", "--workdir=w", "--config.name.part=7"], ["config: "]),
        (["--config={config}:x", "--workdir=w"], ["config.py:x: ", "ValueError: ", "'x'"]),
        (["--config={folder}/nothing.py", "--workdir=w"], ["nothing.py"]),
        (["--config={folder}", "--workdir=w"], ["config"]),
        (["--config={config}"], ["--workdir", "--help"]),
        (["--workdir=w"], ["--config", "--help"]),
        (["--config={config}", "--workdir=w", "--worrkdir=x"], ["worrkdir", "--help"]),
    ],
)
def test_invalid_flags_end_in_one_line(program, capsys, arguments, says):
    filled = [part.format(config=program.config, folder=program.folder) for part in arguments]
    with pytest.raises(SystemExit) as end:
        program.parse(*filled)
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert all(part in err for part in says), err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(:\n", "invalid syntax"),
        ("from rmpe_jax.errors import UserError\nraise UserError('say this')\n", "say this"),
        (CONFIG.replace("return", "config.stepz = 7; return"), "did you mean 'steps'?"),
        (CONFIG.replace("return", "config.steps = 'x'; return"), "field 'steps'"),
    ],
)
def test_invalid_config_files_end_in_one_line(program, capsys, text, says):
    (program.folder / "bad.py").write_text(text)
    with pytest.raises(SystemExit) as end:
        program.parse(f"--config={program.folder}/bad.py", "--workdir=w")
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert says in err


@pytest.fixture
def _as_before(monkeypatch):
    """`run` silences libraries until the process ends; not in the process of the tests."""
    monkeypatch.setattr(entry, "_quiet_libraries", lambda: None)


@pytest.mark.usefixtures("_as_before")
class TestRun:
    def test_success(self, capsys):
        assert entry.run(lambda: None) == 0
        assert capsys.readouterr() == ("", "")

    def test_a_user_error_is_one_line(self, capsys):
        def main():
            raise UserError("a.json: not JSON; fix it")

        assert entry.run(main) == 1
        assert capsys.readouterr() == ("", "a.json: not JSON; fix it\n")

    def test_ctrl_c(self, capsys):
        def main():
            raise KeyboardInterrupt  # a signal is ignored if the parent process ignores it

        assert entry.run(main) == 130
        assert capsys.readouterr().err == "stopped\n"

    def test_other_errors_keep_their_traceback(self):
        def main():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            entry.run(main)

    def test_exit_statuses_are_kept(self):
        with pytest.raises(SystemExit) as end:
            entry.run(lambda: sys.exit(143))
        assert end.value.code == 143


def test_the_folder_of_the_compilation_cache(monkeypatch, tmp_path):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        entry.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "rmpe_jax")
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
        entry.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "/elsewhere"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_an_old_name_of_a_key_is_replaced_with_a_notice(tmp_path, program, capsys):
    text = "from rmpe_jax.config import default_config as get_config"
    (tmp_path / "config.py").write_text(text)
    program.parse(f"--config={program.config}", "--workdir=w", "--config.codec.integer_centre=True")
    assert program.flags.config.codec.integer_center is True
    old, new = "--config.codec.integer_centre", "--config.codec.integer_center"
    assert capsys.readouterr().err == f"{old} is now called {new}; the old name still works\n"


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run"])
def test_flags_with_dashes_or_underscores(program, flag):
    flags.DEFINE_bool("dry_run", False, "Nothing is done.", flag_values=program.flags)
    program.parse(f"--config={program.config}", "--workdir=w", flag)
    assert program.flags.dry_run
