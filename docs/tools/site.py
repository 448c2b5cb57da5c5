"""What MkDocs does on top of its own (hooks in mkdocs.yml).

Pages and what they link to are at the paths that they have in the project. Figures are shown as the pictures that were
made of them, so that the site needs no script from elsewhere.
"""

import html
import os
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.tools.figures import all_figures, picture_of
from docs.tools.markdown_files import PROJECT_DIR, headings, is_relative, links, markdown_files

READABLE: Final = 0.7  # of a picture's own size, or its text is too small; wider ones scroll
STYLE: Final = Path(__file__).with_name("site.css")
FIGURE: Final = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Take the project's pages, and files of the project that they link to, instead of the folder docs/."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    pages = markdown_files()
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in pages
        for target in links(page.read_text(encoding="utf-8"))
        if is_relative(target)
    }
    for path in sorted({*pages, *linked, *all_figures(), STYLE}):
        if path.is_file() and path.is_relative_to(PROJECT_DIR):
            uri = path.relative_to(PROJECT_DIR).as_posix()
            files.append(File(uri, str(PROJECT_DIR), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_unused: object) -> str:
    """Show the picture of each Mermaid figure."""

    def picture(match: re.Match[str]) -> str:
        path = picture_of(match[1])
        if not path.exists():
            raise PluginError(f"{page.file.src_uri}: a figure has no picture; type: make figures")
        address = os.path.relpath(path, (PROJECT_DIR / page.file.src_uri).parent)
        heading = (headings(markdown[: match.start()]) or ["Figure"])[-1]
        image = f'<img alt="{html.escape(heading)}" src="{address}" style="min-width: {READABLE * _width(path):.0f}px">'
        return f'<div class="figure"><a href="{address}">{image}</a></div>'

    return FIGURE.sub(picture, markdown)


def on_post_page(output: str, *, page: Page, **_unused: object) -> str:
    """Say that a French page is French: to browsers that translate, and to those who hear it read."""
    return output.replace('<html lang="en"', '<html lang="fr"', 1) if ".fr." in page.file.src_uri else output


def _width(picture: Path) -> float:
    found = re.search(r'viewBox="\S+ \S+ (\S+) ', picture.read_text(encoding="utf-8"))
    assert found
    return float(found[1])
