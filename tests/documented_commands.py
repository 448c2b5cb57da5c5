"""The commands that documents tell their readers to type, and whether the programs understand them."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from docs.tools.markdown_files import PROJECT_DIR, blocks, inline_code
from energy_iot.cli import app
from energy_iot.settings import Settings

OURS = ("energy-iot", "make")
# of the system: what they take is theirs to say
OTHERS = {"apt-get", "docker", "git", "pg_dump", "psql", "python", "python3", "source", "sudo", "systemctl"}
NO_COMMAND = re.compile(r"\[\w+\]|(?!ENERGY_IOT_)\w+=.*|(create|grant|alter|drop|select)\s.*", re.IGNORECASE)


@dataclass(frozen=True)
class DocumentedCommand:
    """A command as a page has it.

    Attributes:
        text: What is typed, on one line and without comment.
        is_mention: In running text a command may be named without the arguments that it needs.
    """

    text: str
    is_mention: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def documented_commands(path: Path) -> list[DocumentedCommand]:
    """All lines of plain code blocks that are typed, and commands of ours in running text; each once."""
    text = path.read_text(encoding="utf-8")
    lines = [
        line.strip()
        for block in blocks(text)
        if block.language in {"", "sh", "bash", "console"}
        for line in re.sub(r"\s*\\\n\s*", " ", block.text).splitlines()
    ]
    typed = [re.sub(r"(^|\s)#\s.*", "", line).strip() for line in lines]
    mentioned = [" ".join(code.split()) for code in inline_code(text)]
    found = [DocumentedCommand(line, False) for line in typed if line and not NO_COMMAND.fullmatch(line)]
    found += [DocumentedCommand(code, True) for code in mentioned if re.match(rf"({'|'.join(OURS)}) [a-z]", code)]
    return list(dict.fromkeys(found))


def check(command: DocumentedCommand) -> None:
    """Have the program read the command without doing it.

    Raises:
        Exception: The program does not understand it.
    """
    program, *arguments = command.words
    if program == "energy-iot":
        check_energy_iot(arguments, is_mention=command.is_mention)
    elif program == "make":
        asked = ["make", "--dry-run", "--always-make", *arguments]
        done = subprocess.run(asked, cwd=PROJECT_DIR, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif name := re.match(r"ENERGY_IOT_(\w+)=", command.text):
        assert name[1].lower() in Settings.model_fields, f"{name[0]} is no setting"
    else:
        assert program in OTHERS, f"{program} is no program that a reader is known to have"


def check_energy_iot(arguments: list[str], *, is_mention: bool = False) -> None:
    """Have each group and command read its options and arguments, as it does before anything is done."""
    command = get_command(app)
    context: typer.Context | None = None
    name = "energy-iot"
    while isinstance(command, TyperGroup):
        if is_mention and not arguments:
            return
        context = command.make_context(name, arguments, parent=context)
        found, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        name = found or name
    assert isinstance(command, TyperCommand)
    needs_more = is_mention and not arguments and any(parameter.required for parameter in command.params)
    if not needs_more:
        command.make_context(name, arguments, parent=context)
