"""What notebooks show."""

import nbformat


def shown(notebook: nbformat.NotebookNode) -> list[list[tuple[str, tuple[str, ...], str]]]:
    """For each code cell its outputs: their type, forms and text; pictures differ by fonts, and are left out."""
    return [
        [
            (output.output_type, tuple(sorted(output.get("data", ()))), output.get("data", {}).get("text/plain", ""))
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
