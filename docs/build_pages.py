"""Pages of the site that are generated when it is built; `mkdocs.yml` names this file as a hook.

* `api/`: the API reference, one page for each package of rmpe_jax, from its docstrings.
* `tutorials/*.md`: the notebooks of `docs/tutorials`, with their saved outputs.
"""

import ast
import base64
import json
import pathlib
import re

DOCS = pathlib.Path(__file__).parent
PACKAGE = DOCS.parent / "rmpe_jax"
TUTORIALS = DOCS / "tutorials"


# ---- the API reference ---------------------------------------------------------------------------


def modules() -> dict[str, list[str]]:
    """The public modules of each package with any, by dotted name; the package itself is first."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if path.name == "__init__.py":
            found[name.removesuffix(".__init__")] = [name.removesuffix(".__init__")]
        elif not path.name.startswith("_"):
            found[name.rpartition(".")[0]].append(name)
    return found


def api_pages() -> dict[str, str]:
    """The Markdown of each page of the reference, by its path in the site's sources."""
    packages = modules()
    pages = {"api/index.md": _api_index(packages)}
    for package, members in packages.items():
        blocks = [_block(package, heading_level=1), _reexports(package)]
        blocks += [_block(module, heading_level=2) for module in members[1:]]
        pages[_page_of(package)] = "\n".join(blocks)
    return pages


def public_names(module: str) -> list[str]:
    """The public functions, classes and constants that a module defines, as they come."""
    names = []
    for node in _parse(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def _block(module: str, heading_level: int) -> str:
    """What mkdocstrings replaces by the documentation of a module."""
    # Named members are shown even without a docstring, as constants are.
    options = {"heading_level": heading_level, "members": public_names(module) or False}
    return f"::: {module}\n    options: {json.dumps(options)}\n"


def _reexports(package: str) -> str:
    """Names that a package imports for its users, which its modules define."""
    imported = [
        alias.name
        for node in _parse(package).body
        if isinstance(node, ast.ImportFrom) and node.module.startswith(package)
        for alias in node.names
    ]
    links = [f"[`{name}`][{package}.{name}]" for name in imported if not name.startswith("_")]
    return f"Also in `{package}`: {', '.join(links)}.\n" if links else ""


def _page_of(package: str) -> str:
    return f"api/{package.removeprefix('rmpe_jax.')}.md"


def _api_index(packages: dict[str, list[str]]) -> str:
    lines = ["# API", "", "Every public module of `rmpe_jax`, by package.", ""]
    for package, members in packages.items():
        page = _page_of(package).removeprefix("api/")
        lines += [f"## [{package}]({page})", "", _summary(package), ""]
        if members[1:]:
            lines += ["| module | content |", "|---|---|"]
        for member in members[1:]:
            short = member.removeprefix(package + ".")
            lines.append(f"| [`{short}`]({page}#{member}) | {_summary(member)} |")
        lines.append("")
    return "\n".join(lines)


def _summary(module: str) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(_parse(module)) or ""
    return docstring.partition("\n")[0].replace("|", r"\|")


def _parse(module: str) -> ast.Module:
    path = PACKAGE.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


# ---- the notebooks -------------------------------------------------------------------------------


def notebook_pages() -> dict[str, str | bytes]:
    """Each notebook as Markdown, and its images, by their paths in the site's sources."""
    pages: dict[str, str | bytes] = {}
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        parts, images = [], {}
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source)
                continue
            parts.append(_fenced(source, "python"))
            for output in cell["outputs"]:
                parts.append(_output(output, path.stem, images))
        title, _, rest = "\n\n".join(parts).partition("\n")
        link = f"[Download this page as a notebook]({path.name}){{ download }}"
        pages[f"tutorials/{path.stem}.md"] = f"{title}\n\n{link}\n{rest}\n"
        pages |= {f"tutorials/{name}": content for name, content in images.items()}
    return pages


def _output(output: dict, stem: str, images: dict[str, bytes]) -> str:
    """An output as Markdown; its image, if it has one, is added to `images`."""
    data = output.get("data", {})
    for kind in ("png", "jpeg"):
        if f"image/{kind}" in data:
            name = f"{stem}_{len(images)}.{kind}"
            images[name] = base64.b64decode("".join(data[f"image/{kind}"]))
            return f"![Output of the cell above]({name})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return _fenced(text.rstrip("\n"), "text")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


# ---- the hook ------------------------------------------------------------------------------------


def on_config(config):
    """Puts the API reference into the navigation, where `mkdocs.yml` has the entry `API`."""
    packages = [{package: _page_of(package)} for package in modules()]
    for section in config.nav:
        for entry in next(iter(section.values())):
            if isinstance(entry, dict) and "API" in entry:
                entry["API"] = [{"Overview": "api/index.md"}, *packages]
    return config


def on_files(files, config):
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    for path, content in {**api_pages(), **notebook_pages()}.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to notebooks, which GitHub shows, become links to their pages here."""
    return re.sub(r"(\]\([\w./-]+)\.ipynb\)(?!\{)", r"\1.md)", markdown)
