"""Both readmes show the same commands, tables and pictures, and what they name exists."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from energy_iot.cli import app

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
        r"```mermaid\n(.*?)```",
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


@pytest.mark.parametrize("line", commands(ENGLISH))
def test_each_command_exists(line: str) -> None:
    program, name, *_ = line.split()
    if program == "make":
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "energy-iot":
        assert name in get_command(app).commands
    else:
        assert line == "source .venv/bin/activate"


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", ENGLISH))
def test_each_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
