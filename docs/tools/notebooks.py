"""Run the notebooks and keep what they show, and nothing of when and on what: `make notebooks`."""

from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient

from docs.tools.markdown_files import PROJECT_DIR

NOTEBOOKS: Final = tuple(sorted((PROJECT_DIR / "notebooks").glob("*.ipynb")))
MOST_SECONDS_OF_A_CELL: Final = 600  # the first one runs the pipeline


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook as it is committed.

    Raises:
        nbformat.ValidationError: It is none.
    """
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def run_notebook(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with what it shows when it is run.

    Args:
        path: The notebook; the file stays as it is.
        folder: Where it is run: fleet.py is there, and the fleet will be.

    Raises:
        nbclient.exceptions.CellExecutionError: Code of it fails.
    """
    notebook = read_notebook(path)
    client = NotebookClient(
        notebook,
        timeout=MOST_SECONDS_OF_A_CELL,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> None:
    """Run all of them where they are."""
    for path in NOTEBOOKS:
        print(f"{path.relative_to(PROJECT_DIR)} ...", flush=True)
        nbformat.write(run_notebook(path, path.parent), path)


if __name__ == "__main__":
    main()
