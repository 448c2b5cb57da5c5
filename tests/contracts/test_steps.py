"""The table of steps, the functions it names and the command line agree."""

import inspect
from pkgutil import resolve_name

import pytest
from typer.main import get_command

from energy_iot.cli import app
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
def test_each_step_has_its_command(step: Step) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # the root is a group
    name, *arguments = step.command
    command = commands[name]
    if arguments:
        choices = command.params[0].type.choices
        assert [str(getattr(choice, "value", choice)) for choice in choices].count(arguments[0]) == 1


def test_find_step_knows_them_and_names_them_for_others() -> None:
    assert find_step("ml_score").command == ("score",)
    with pytest.raises(Exception, match="sync_to_clickhouse"):
        find_step("nonsense")
