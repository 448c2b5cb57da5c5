"""The notebooks run, and show what is committed."""

import shutil
from pathlib import Path

import pytest

from docs.tools.notebooks import NOTEBOOKS, read_notebook, run_notebook
from tests.notebooks import shown

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("notebooks")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them are run: they share one fleet, which the first one makes."""
    made = tmp_path_factory.mktemp("notebooks")
    shutil.copy(NOTEBOOKS[0].parent / "fleet.py", made)
    return made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_what_is_committed(path: Path, folder: Path) -> None:
    assert shown(run_notebook(path, folder)) == shown(read_notebook(path)), "run it again: make notebooks"
