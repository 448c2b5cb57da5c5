"""The documents hold together: the site builds, links lead somewhere, figures have pictures, words are spelt right."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from docs.tools.demo_recording import PLAYED_SECONDS, shorten
from docs.tools.figures import ARCHITECTURE, FOLDER, all_figures
from docs.tools.markdown_files import PROJECT_DIR, anchors, is_relative, links, markdown_files
from docs.tools.spelling import unknown_words
from energy_iot.pipeline import STEPS

PAGES = [pytest.param(path, id=path.relative_to(PROJECT_DIR).as_posix()) for path in markdown_files()]
FROM_ELSEWHERE = re.compile(r"<(?:script|img|iframe|source)[^>]* src=\"https?:|<link[^>]* href=\"https?:")


def test_there_are_pages() -> None:
    assert len(PAGES) > 9


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in links(page.read_text(encoding="utf-8")):
        if target.startswith("#") or is_relative(target):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.is_file(), f"{target}: there is no such file"
            assert file.is_relative_to(PROJECT_DIR), f"{target}: outside of the project"
            if anchor:
                assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_words_are_spelt_right(page: Path) -> None:
    language = "fr" if page.name.endswith(".fr.md") else "en"
    unknown = unknown_words(page.read_text(encoding="utf-8"), language)
    assert not unknown, f"{', '.join(unknown)}: correct them, or add them to docs/words.txt"


def test_misspelt_words_are_seen() -> None:
    english = "# Voltaage\n\nThe mean's `meann` at https://examplle.org, kWh, GeV2, a [linnk](x.md)."
    assert unknown_words(english, "en") == ["linnk", "voltaage"]
    assert unknown_words("L'énergie qu'on mesrue jusqu'à l'arrêt, `mesrue` aussi.", "fr") == ["mesrue"]


def test_each_figure_has_its_picture() -> None:
    assert all_figures()
    assert set(FOLDER.iterdir()) == set(all_figures()), "type: make figures"
    assert ARCHITECTURE.exists()


def test_the_recording_is_of_this_pipeline() -> None:
    picture = (PROJECT_DIR / "docs/images/demo.svg").read_text(encoding="utf-8")
    assert len(picture) < 300_000
    words = ET.fromstring(picture).itertext()  # each at its place, without spaces
    assert "$makedemo" in (shown := "".join("".join(words).split()))
    for step in STEPS:
        assert step.name in shown, "type: make demo-recording"


def test_the_recording_is_shortened_and_nothing_else() -> None:
    events = [[second * 0.1, "o", f"line {second}\n"] for second in range(1000)]
    header, *played = shorten("\n".join(map(json.dumps, [{"version": 2}, *events]))).splitlines()
    frames = list(map(json.loads, played))
    assert json.loads(header) == {"version": 2}
    assert "".join(text for _, _, text in frames) == "".join(text for _, _, text in events)
    assert 10 < frames[-2][0] <= PLAYED_SECONDS
    assert len(frames) < 40


def test_the_site_builds_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path],
        cwd=PROJECT_DIR,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > len(PAGES)  # with the one for pages that there are not
    for name, page in pages.items():
        assert not FROM_ELSEWHERE.search(page), name
        assert 'class="language-mermaid"' not in page
    assert '<div class="figure">' in pages["docs/06_architecture.html"]
    for picture in re.findall(r'<img[^>]* src="([^"]+)"', pages["index.html"]):
        assert (tmp_path / picture).is_file()
