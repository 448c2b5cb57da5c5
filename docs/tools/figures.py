"""Pictures of the Mermaid figures: `make figures` draws those that are missing (needs Node.js and Chromium).

GitHub draws Mermaid itself; the site shows these pictures, and the READMEs docs/images/architecture.png.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from docs.tools.markdown_files import PROJECT_DIR, blocks, markdown_files
from tests.chromium import CHROMIUM, FLAGS, NO_CHROMIUM

FOLDER: Final = PROJECT_DIR / "docs/images/figures"
ARCHITECTURE: Final = PROJECT_DIR / "docs/images/architecture.png"
DRAWING_PROGRAM: Final = "@mermaid-js/mermaid-cli@11.17.0"  # npm
# labels as SVG's own text: HTML in pictures is cut off where the reader's font is wider than ours
MERMAID_OPTIONS: Final = {"htmlLabels": False, "flowchart": {"htmlLabels": False}, "theme": "neutral"}


def picture_of(figure: str) -> Path:
    """Where the picture of a figure's text is; another text has another picture."""
    return FOLDER / f"{hashlib.sha256(figure.encode()).hexdigest()[:12]}.svg"


def figures(path: Path) -> list[str]:
    """Texts of the figures in a Markdown file."""
    return [block.text for block in blocks(path.read_text(encoding="utf-8")) if block.language == "mermaid"]


def all_figures() -> dict[Path, str]:
    """Text of each picture that there is to be."""
    return {picture_of(figure): figure for path in markdown_files() for figure in figures(path)}


def architecture() -> str:
    """The figure of the whole: the first of the architecture's page."""
    return figures(PROJECT_DIR / "docs/06_architecture.md")[0]


def draw(figure: str, picture: Path, *arguments: str) -> None:
    """Draw a figure.

    Raises:
        subprocess.CalledProcessError: Node.js, the program or its text is at fault; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        browser, options = Path(folder, "browser.json"), Path(folder, "mermaid.json")
        browser.write_text(json.dumps({"executablePath": CHROMIUM, "args": FLAGS}))
        options.write_text(json.dumps(MERMAID_OPTIONS))
        subprocess.run(
            ["npx", "--yes", f"--package={DRAWING_PROGRAM}", "mmdc", "--quiet", "--input", "-", "--output", picture,
             "--puppeteerConfigFile", browser, "--configFile", options, *arguments],
            input=figure, text=True, check=True, env={**os.environ, "PUPPETEER_SKIP_DOWNLOAD": "1"},
        )  # fmt: skip


def main() -> None:
    """Draw what is missing, and remove what no page shows any more."""
    if CHROMIUM is None:
        raise SystemExit(f"error: {NO_CHROMIUM}\n  fix: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    wanted = all_figures()
    for picture, figure in wanted.items():
        if not picture.exists():
            draw(figure, picture)
    for picture in set(FOLDER.iterdir()) - set(wanted):
        picture.unlink()
    draw(architecture(), ARCHITECTURE, "--scale", "2", "--width", "1600")


if __name__ == "__main__":
    main()
