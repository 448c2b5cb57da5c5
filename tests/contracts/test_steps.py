"""The table of steps, the functions it names and the command line agree."""

import inspect
from pkgutil import resolve_name

import pytest
from typer.testing import CliRunner

from energy_iot.cli import Invocation, app
from energy_iot.pipeline import STEPS, RunContext, Step, StepReport, find_step

DESIGNED = [  # the order of the design; orchestration depends on these names
    "check_source",
    "ingest_data",
    "dbt_run_staging",
    "dbt_run_intermediate",
    "ge_validate_staging",
    "ml_score",
    "dbt_run_marts",
    "ge_validate_marts",
    "sync_to_clickhouse",
]


def test_the_steps_are_the_designed_ones_in_order() -> None:
    assert [step.name for step in STEPS] == DESIGNED


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_each_step_is_a_function_of_a_context(step: Step) -> None:
    signature = inspect.signature(resolve_name(step.function), eval_str=True)
    assert [parameter.annotation for parameter in signature.parameters.values()] == [RunContext]
    assert signature.return_annotation is StepReport


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_command_of_a_step_ends_with_it(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def note(_invocation: Invocation, _settings: object, names: tuple[str, ...], *_rest: object) -> None:
        asked.append(names)

    monkeypatch.setattr("energy_iot.cli._run_steps", note)
    files = ["readings.csv"] if step.name in {"check_source", "ingest_data"} else []
    done = CliRunner().invoke(app, ["--quiet", *step.command, *files], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert asked[0][-1] == step.name


def test_find_step_knows_them_and_names_them_for_others() -> None:
    assert find_step("ml_score").command == ("score",)
    with pytest.raises(Exception, match="sync_to_clickhouse"):
        find_step("nonsense")
