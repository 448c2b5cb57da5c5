"""The command line's reference, from the program itself: `make docs-reference` writes it."""

from typing import Final

import typer
from typer.cli import get_docs_for_click
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from docs.tools.markdown_files import PROJECT_DIR
from energy_iot.cli import app

PAGE: Final = PROJECT_DIR / "docs/cli.md"
INTRODUCTION: Final = """\
# Command line

Written by `make docs-reference` from what `energy-iot COMMAND --help` says. Options of `energy-iot` itself may also be
given behind the command.
"""


def to_markdown() -> str:
    """The page."""
    program = get_command(app)
    assert isinstance(program, TyperGroup)
    _show_whole_sentences(program)
    context = typer.Context(program, **program.context_settings)
    title, _, reference = get_docs_for_click(obj=program, ctx=context, name="energy-iot").partition("\n")
    assert title.startswith("# ")
    return f"{INTRODUCTION}{reference.rstrip()}\n"


def _show_whole_sentences(group: TyperGroup) -> None:
    """Lists of commands, which break off where a terminal's line ends, get the whole first sentence."""
    for command in group.commands.values():
        assert isinstance(command, TyperCommand | TyperGroup)
        command.short_help = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        if isinstance(command, TyperGroup):
            _show_whole_sentences(command)


def main() -> None:
    """Write the page."""
    PAGE.write_text(to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
