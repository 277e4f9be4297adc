import importlib.metadata
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from rmpe_jax import arguments, cli
from rmpe_jax.data import prepare

ROOT = pathlib.Path(__file__).parents[1]


def run(*command: str) -> subprocess.CompletedProcess:
    """Runs `python COMMAND` in the folder of the project."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_invalid_input_is_one_line_on_stderr(tmp_path, capsys):
    assert cli.main(["prepare", "ochuman:data:val", "--out", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("rmpe: 'ochuman:data:val' is not a dataset: write coco:FOLDER")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "rmpe: the following arguments are required: COMMAND; rmpe --help shows the"),
        (["--bogus"], "rmpe: the following arguments are required: COMMAND"),
        (["bogus"], "rmpe: argument COMMAND: invalid choice: 'bogus' (choose from 'predict'"),
        (
            ["predict", "photo.jpg", "--bogus"],
            "rmpe predict: unrecognized arguments: --bogus; rmpe predict --help shows the options",
        ),
        (["prepare", "--out", "o"], "the following arguments are required: SPEC"),
        (["prepare", "out"], "the following arguments are required: --out"),
        (["prepare", "lsp:x", "lsp:y"], "the following arguments are required: --out"),
        (["prepare", "lsp:x", "--shards", "0"], "'0' is not an integer of at least 1"),
        (["fit-pgpg", "--atoms", "-1"], "'-1' is not an integer of at least 0"),
        (["prepare", "lsp:x", "--max-corrupt", "2"], "'2' is not a fraction from 0 to 1"),
        (["prepare", "lsp:x", "--max-corrupt", "nan"], "'nan' is not a fraction from 0 to 1"),
        (["prepare", "lsp:x", "--max-corrupt", "all"], "'all' is not a fraction from 0 to 1"),
        (["prepare", "lsp:x", "--max-suspicious", "-1"], "'-1' is not a fraction from 0 to 1"),
        (["convert", "alphapose", "f"], "the following arguments are required: --out"),
        (["convert", "openpose", "f", "--out", "o"], "invalid choice: 'openpose'"),
        (
            ["convert", "alphapose", "f", "--out", "o", "--input-size", "256"],
            "'256' is not HEIGHTxWIDTH, such as 256x192",
        ),
    ],
)
def test_invalid_arguments_are_one_line(argv, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "summary"),
    [
        (("-m", "rmpe_jax.cli", "train"), "Train a pose network or a detector."),
        (("train.py",), "Train a pose network or a detector."),
        (("-m", "rmpe_jax.cli", "eval"), "Evaluate a trained pose network or detector"),
        (("eval.py",), "Evaluate a trained pose network or detector"),
    ],
    ids=" ".join,
)
def test_train_and_eval(command, summary):
    """Their help has the docstring and the flags; an unknown flag is one line."""
    found = run(*command, "--help")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(summary)
    assert "\n  --config: FILE or FILE:ARGUMENT" in found.stdout
    assert "\n  --workdir: " in found.stdout
    assert "\n  --coordinator: host:port of process 0" in found.stdout
    assert ("\n  --[no]flip-test: " in found.stdout) == ("Evaluate" in summary)
    found = run(*command, "--bogus=1")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith("Unknown command line flag 'bogus'")
    assert line.endswith(" --help shows the flags")


@pytest.mark.slow
def test_eval_needs_a_model_or_a_config_and_a_workdir():
    for given in (["--model=m", "--workdir=w"], ["--workdir=w"]):
        found = run("-m", "rmpe_jax.cli", "eval", *given)
        assert found.returncode == 1
        assert found.stderr.startswith("give --model, or --config and --workdir")
        assert found.stderr.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "--help"])
    assert stop.value.code == 0
    assert "rmpe prepare coco:data/coco:train2017 --out prepared" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_summaries_of_all_commands(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    assert f"\n    {command} " in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--flip-test", "--flip_test"])
def test_options_with_dashes_or_underscores(flag):
    argv = arguments.present_names(["predict", "photo_1.jpg", flag], {})
    args = cli.make_parser().parse_args(argv)
    assert args.flip_test
    assert args.inputs == ["photo_1.jpg"]


def test_old_names_of_options(tmp_path, capsys):
    """They work, and one line gives the new name."""
    missing = str(tmp_path / "none.jpg")
    assert cli.main(["predict", missing, "--batch=3", "--boxes"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "--batch is now called --batch-size; the old name still works",
        "--boxes is now called --draw-boxes; the old name still works",
        f"rmpe: {missing}: no such file or folder; check the path",
    ]
    assert cli.main(["export", missing, "--to", "onnx", "--out=y"]) == 1
    first, _ = capsys.readouterr().err.splitlines()
    assert first == "--to is now called --format; the old name still works"


def test_the_old_form_of_prepare(monkeypatch, capsys):
    calls = []
    counts = prepare.Counts("lsp/x", np.arange(14))
    monkeypatch.setattr(prepare, "prepare", lambda *args: calls.append(args) or [counts])
    assert cli.main(["prepare", "out", "lsp:x", "lsp:y"]) == 0
    assert cli.main(["prepare", "lsp:x", "lsp:y", "--out", "out"]) == 0
    assert calls == [("out", ["lsp:x", "lsp:y"], None, 0.01, 0.2, None)] * 2
    assert capsys.readouterr().err == (
        "rmpe prepare OUT SPEC ... is now called rmpe prepare SPEC ... --out OUT; "
        "the old name still works\n"
    )


def test_the_handler_of_sigterm_is_restored(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    cli.main(["prepare", "nothing:x", "--out", str(tmp_path / "out")])
    assert signal.getsignal(signal.SIGTERM) is before


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom rmpe_jax import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'jax', 'cv2', 'tensorflow_datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_the_command_is_installed():
    try:
        importlib.metadata.distribution("rmpe_jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("rmpe_jax runs from its folder and is not installed")
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="rmpe")
    assert entry.load() is cli.main
