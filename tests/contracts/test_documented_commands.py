"""Every command in the documents is one that its program understands."""

from pathlib import Path

import pytest

from docs.tools.markdown_files import PROJECT_DIR, markdown_files
from tests.documented_commands import DocumentedCommand, check, check_energy_iot, documented_commands

GENERATED = {"cli.md", "evaluation.md"}
COMMANDS = [
    pytest.param(command, id=f"{path.name}: {command.text}")
    for path in markdown_files()
    if path.name not in GENERATED | {"CHANGELOG.md"}
    for command in documented_commands(path)
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 60
    runbook = [command.text for command in documented_commands(PROJECT_DIR / "docs/05_runbook.md")]
    assert "energy-iot rejects retry bad.csv" in runbook
    assert "make monitoring" in runbook


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: DocumentedCommand) -> None:
    check(command)


@pytest.mark.parametrize(
    "text",
    [
        "energy-iot fly",
        "energy-iot run --fast",
        "energy-iot rank --top many",
        "energy-iot rejects mend",
        "energy-iot check-source",
        "make wonders",
        "ENERGY_IOT_WEATHER=fine",
        "sing a song",
    ],
)
def test_nonsense_is_not_understood(text: str) -> None:
    with pytest.raises(Exception, match=r"\w"):
        check(DocumentedCommand(text, is_mention=False))


def test_a_mention_may_leave_out_what_a_call_needs() -> None:
    check_energy_iot(["explain"], is_mention=True)
    check_energy_iot(["rejects"], is_mention=True)
    with pytest.raises(Exception, match="option"):
        check_energy_iot(["rank", "--worst"], is_mention=True)


def test_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Type `energy-iot status`, not `status`.\n\n```\nenergy-iot run a.csv \\\n    --wait 5   # waits\n[Service]\n"
        "ExecStart=/bin/true\ncreate role a;\n```\n\n```python\nimport this\n```\n"
    )
    found = [(command.text, command.is_mention) for command in documented_commands(page)]
    assert found == [("energy-iot run a.csv --wait 5", False), ("energy-iot status", True)]
