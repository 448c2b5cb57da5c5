"""The notebooks are committed as they were run: whole, in order, small, and with nothing of the machine in them."""

import json
import re
from pathlib import Path

import pytest

from docs.tools.markdown_files import PROJECT_DIR, is_relative, links
from docs.tools.notebooks import NOTEBOOKS, read_notebook
from docs.tools.spelling import unknown_words
from tests.notebooks import shown

MACHINE = re.compile(r"(?<![\w.])/(home|root|tmp|usr|Users|opt|work)/|[A-Z]:\\\\")


def test_there_are_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_as_it_was_run(path: Path) -> None:
    notebook = read_notebook(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [kind for outputs in shown(notebook) for kind, _, _ in outputs]
    assert len(kinds) > 5
    assert set(kinds) == {"execute_result"}  # no errors, no warnings
    assert any("image/png" in forms for outputs in shown(notebook) for _, forms, _ in outputs)
    assert path.stat().st_size < 400_000
    text = json.dumps([[cell.source, *(output.data.get("text/plain") for output in cell.outputs)] for cell in code])
    assert not MACHINE.search(text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_text_is_spelt_right_and_its_links_lead_somewhere(path: Path) -> None:
    text = "\n\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")
    assert not unknown_words(text, "en")
    for target in filter(is_relative, links(text)):
        assert (path.parent / target).exists(), target


def test_figures_of_the_evaluation_are_its_own() -> None:
    evaluation = (PROJECT_DIR / "docs/evaluation.md").read_text(encoding="utf-8")
    told = [
        figure
        for path in NOTEBOOKS
        for cell in read_notebook(path).cells
        for figure in re.findall(r"\d\.\d+ \(\d\.\d+ to \d\.\d+\)", cell.source)
    ]
    assert len(told) > 1
    assert all(figure in evaluation for figure in told)
