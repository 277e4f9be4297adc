"""Every public function, class and constant is in the API reference."""

import json
import pathlib
import re
import runpy
import subprocess
import sys
import zlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generator() -> dict:
    """What the script defines that generates the pages."""
    return runpy.run_path(str(ROOT / "docs" / "build_pages.py"))


@pytest.fixture(scope="module")
def public_symbols() -> set[str]:
    """Functions, classes and constants of all modules, found without importing them."""
    griffe = pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    waiting, found = [griffe.load("rmpe_jax", search_paths=[str(ROOT)])], set()
    while waiting:
        for member in waiting.pop().members.values():
            if member.is_alias or member.name.startswith("_"):
                continue
            if member.is_module:
                waiting.append(member)
            else:
                found.add(member.path)
    return found


def test_the_pages_name_every_public_symbol(generator, public_symbols):
    shown = set()
    for page in generator["api_pages"]().values():
        for module, options in re.findall(r"^::: (\S+)\n    options: (.*)$", page, re.M):
            shown |= {f"{module}.{name}" for name in json.loads(options)["members"] or ()}
    assert shown == public_symbols
    assert len(shown) > 400


def test_links_to_notebooks_become_links_to_pages(generator):
    text = "see [a](tutorials/a.ipynb), [b](b.ipynb){ download } and [c](c.md)"
    replaced = generator["on_page_markdown"](text, page=None, config=None, files=None)
    assert replaced == "see [a](tutorials/a.md), [b](b.ipynb){ download } and [c](c.md)"


@pytest.mark.slow
def test_the_built_site_has_every_public_symbol(public_symbols, tmp_path):
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    inventory = (tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(inventory).decode().splitlines()
    listed = {line.split(" ")[0] for line in lines}
    assert public_symbols - listed == set()
