"""Hooks, workflow and templates do what the project's own commands do."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tools.markdown_files import PROJECT_DIR, inline_code
from tests.documented_commands import check_energy_iot

MAKEFILE = (PROJECT_DIR / "Makefile").read_text(encoding="utf-8")
TEMPLATES = sorted((PROJECT_DIR / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def recipe(target: str) -> list[str]:
    """The lines of a target."""
    found = re.search(rf"^{target}:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)
    assert found
    return [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in found[1].splitlines()]


def read(name: str | Path) -> dict[str, Any]:
    content = yaml.safe_load((PROJECT_DIR / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_hooks_are_make_lint() -> None:
    hooks = [hook for repository in read(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    assert len(hooks) > 3
    assert [hook["entry"] for hook in hooks] == recipe("lint")
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)


def test_workflow_is_the_ci_script() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    checkout, script = job["steps"]
    assert checkout["uses"].startswith("actions/checkout@")
    assert script == {"run": ".ci/run"}
    assert (PROJECT_DIR / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_issue_template_is_whole(template: Path) -> None:
    form = read(template)
    assert {"name", "description", "body"} <= set(form)
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked) > 1
    assert any(field.get("validations", {}).get("required") for field in asked)
    for code in inline_code("\n\n".join(str(text) for field in asked for text in field["attributes"].values())):
        if code.startswith("energy-iot "):
            check_energy_iot(code.split()[1:])


def test_there_are_templates() -> None:
    assert {path.stem for path in TEMPLATES} == {"bug", "data_source", "question"}


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="not in a worker of pytest-xdist")
@pytest.mark.xdist_group("kept_together")
def test_groups_of_tests_are_kept_together(request: pytest.FixtureRequest) -> None:
    """Or each worker starts servers of its own: pytest-xdist tells groups by names, and some pytest forbids that."""
    assert request.node.nodeid.endswith("@kept_together")
