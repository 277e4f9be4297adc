"""Rules of the house that a test can hold; docs/architecture.md draws them."""

import ast
import pathlib
import pkgutil
import re
import runpy
import tomllib

import pytest

import rmpe_jax
import rmpe_jax.evaluation
from rmpe_jax.config import parse_config

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "rmpe_jax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def drawn_floors() -> tuple[set[str], ...]:
    """The floors of the drawing in docs/architecture.md, from the ground up.

    A room imports from the floors below it, not from its neighbors. The files beside the rooms are
    the base.
    """
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ │ ([\w · ]+?)(?:  .*)?│", page, re.M)
    floors = [set(line.strip().split(" · ")) for line in lines][::-1]
    return ({"base"}, *floors[1:])


FLOORS = drawn_floors()
ROOMS = set().union(*FLOORS)


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room(module: str) -> str:
    """The room of `rmpe_jax.x.y`: x if it has a floor or is a package, else the base."""
    _, _, name = module.partition(".")
    name = name.partition(".")[0]
    is_package = (ROOT / "rmpe_jax" / name / "__init__.py").is_file() and name
    return name if name in ROOMS or is_package else "base"


def imports(nodes) -> list[str]:
    """The modules named by import statements; `from a import b` names both a and a.b."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def module_name(path: pathlib.Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_public_things_have_docstrings(path):
    tree = parse(path)
    public = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert public == []
    assert not tree.body or ast.get_docstring(tree), "the module has none"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_run_downwards(path):
    if path == ROOT / "rmpe_jax/__init__.py":
        return  # the front door: it leads to every floor, on first use
    here = room(module_name(path))
    assert here in ROOMS, f"give {here} a floor here and a place in docs/architecture.md"
    floor = next(i for i, rooms in enumerate(FLOORS) if here in rooms)
    allowed = {here}.union(*FLOORS[:floor])
    ours = [name for name in imports(ast.walk(parse(path))) if name.startswith("rmpe_jax.")]
    assert [name for name in ours if room(name) not in allowed] == []


def test_public_names_are_written_alike():
    """In `rmpe_jax/__init__.py`: for type checkers, for the lazy import, and in `__all__`."""
    (checked,) = [
        node.body
        for node in parse(ROOT / "rmpe_jax/__init__.py").body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    names = {alias.name: node.module for node in checked for alias in node.names}
    assert names == rmpe_jax._MODULES
    assert sorted(names) == sorted(rmpe_jax.__all__)
    for name in names:
        assert getattr(rmpe_jax, name) is not None


@pytest.mark.parametrize("package", [rmpe_jax, rmpe_jax.evaluation], ids=lambda p: p.__name__)
def test_names_that_wait_are_not_those_of_modules(package):
    """Importing a module sets its name in the package, where it would hide the function."""
    modules = {name for _, name, _ in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package._MODULES)


def test_every_room_is_in_the_picture():
    rooms = {module_name(path).split(".")[1] for path in MODULES if path.name != "__init__.py"}
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert sorted(name for name in rooms if f"\n| `{name}` |" not in page) == []


def test_the_data_pipeline_does_not_import_jax():
    """Neither the modules of `rmpe_jax.data` nor those of ours that come with them."""
    files = {module_name(path): path for path in MODULES}
    waiting = [name for name in files if name.startswith("rmpe_jax.data")]
    seen, wrong = set(), []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        # Statements within functions are not looked at: they may be for the device side.
        found = imports(parse(files[name]).body)
        wrong += [f"{name}: {i}" for i in found if re.match(r"(jax|flax|optax|orbax)(\.|$)", i)]
        waiting += found
    assert {"rmpe_jax.ops.geometry", "rmpe_jax.skeletons"} <= seen
    assert wrong == []


def test_no_paths_of_a_machine():
    files = [
        path
        for pattern in ("*", "configs/*", "docs/*", "benchmarks/*", "rmpe_jax/**/*", "tests/**/*")
        for path in ROOT.glob(pattern)
        if path.suffix in (".py", ".md", ".toml", ".yaml") or path.name == "Makefile"
    ]
    pattern = re.compile(r"(?<![\w.])/(work|root|tmp|home|Users)/")
    lines = [
        f"{relative(path)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert lines == []


def test_version_is_that_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rmpe_jax.__version__ == project["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation


@pytest.mark.parametrize("path", CONFIGS, ids=relative)
def test_configs_are_valid_and_say_how_to_run_them(path):
    parse_config(runpy.run_path(str(path))["get_config"]())
    commands = (
        f"python train.py --config={relative(path)}",
        f"rmpe ablate --config={relative(path)}",
    )
    assert any(command in ast.get_docstring(parse(path)) for command in commands)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_pages_name_files_that_are_there(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:configs|docs|benchmarks|tests|rmpe_jax)/[\w/]+\.(?:py|md)\b", text)
    linked = re.findall(r"\]\((?!\w+:)([^)#]+)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [link for link in linked if not (path.parent / link).exists()]
    assert missing == []


def test_files_of_tests_have_names_of_their_own():
    """Without packages pytest cannot tell two files of one name apart, and runs neither."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
