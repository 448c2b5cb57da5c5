"""Both readmes say the same: the same sections with the same commands, tables, pictures and figures."""

import re
from pathlib import Path

import pytest

from docs.tools.markdown_files import PARSER

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, FRENCH = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.fr.md"))


def commands(text: str) -> list[str]:
    """What a reader would type: the lines of plain code blocks, comments aside."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(#+) ",  # headings, by depth
        r"`([^`\n]+)`",  # names in running text
        r"\]\(([^)]+)\)",  # links and pictures
        r"\b(\d[\d,.-]*)\b",  # figures
    ],
)
def test_both_languages_say_the_same(pattern: str) -> None:
    english = re.findall(pattern, ENGLISH, re.MULTILINE | re.DOTALL)
    assert english
    assert sorted(re.findall(pattern, FRENCH, re.MULTILINE | re.DOTALL)) == sorted(english)


def test_both_languages_give_the_same_commands() -> None:
    assert len(commands(ENGLISH)) > 4
    assert commands(FRENCH) == commands(ENGLISH)


def shape(text: str) -> list[str]:
    """What a readme is made of, in order: headings by depth, code blocks, rows of tables, items of lists, pictures."""
    parts = []
    for token in PARSER.parse(text):
        if token.type in {"heading_open", "fence", "tr_open", "list_item_open"}:
            parts.append(token.tag if token.type == "heading_open" else token.type)
        parts += ["image" for child in token.children or () if child.type == "image"]
    return parts


def test_both_languages_have_the_same_parts_in_the_same_order() -> None:
    assert len(shape(ENGLISH)) > 50
    assert shape(FRENCH) == shape(ENGLISH)
