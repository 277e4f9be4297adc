"""Runs the notebooks of `docs/tutorials` and saves them with their outputs: `make tutorials`.

Only what a reader sees is saved, so that running a notebook again changes as little as possible.
"""

import pathlib

import nbclient
import nbformat


def main() -> None:
    """Runs all notebooks, one after the other, each in its folder."""
    for path in sorted((pathlib.Path(__file__).parent / "tutorials").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbclient.NotebookClient(
            notebook,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
