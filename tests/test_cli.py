import importlib.metadata
import signal
import subprocess
import sys

import pytest

from rmpe_jax import cli


def test_bad_input_is_one_line_on_stderr(tmp_path, capsys):
    assert cli.main(["prepare", str(tmp_path / "out"), "ochuman:data:val"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("rmpe: 'ochuman:data:val' is not a dataset: write coco:FOLDER")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["prepare", "out"], "the following arguments are required: SPEC"),
        (["prepare", "o", "lsp:x", "--shards", "0"], "'0' is not a whole number from 1"),
        (["prepare", "o", "lsp:x", "--max-corrupt", "2"], "'2' is not a share between 0 and 1"),
        (["prepare", "o", "lsp:x", "--max-corrupt", "nan"], "'nan' is not a share between 0 and"),
        (["prepare", "o", "lsp:x", "--max-corrupt", "all"], "'all' is not a share between 0 and"),
        (["convert", "alphapose", "f"], "the following arguments are required: --out"),
        (["convert", "openpose", "f", "--out", "o"], "invalid choice: 'openpose'"),
        (
            ["convert", "alphapose", "f", "--out", "o", "--input-size", "256"],
            "'256' is not HEIGHTxWIDTH, such as 256x192",
        ),
    ],
)
def test_wrong_arguments(arguments, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "--help"])
    assert stop.value.code == 0
    assert "rmpe prepare prepared/coco coco:data/coco:train2017" in capsys.readouterr().out


def test_the_handler_of_sigterm_is_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    cli.main(["prepare", str(tmp_path / "out"), "nothing"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_help_needs_nothing_heavy():
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
