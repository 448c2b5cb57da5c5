"""Options of `energy-iot generate`, and what is said when they make no sense."""

from pathlib import Path

import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from energy_iot.cli import app
from energy_iot.errors import UsageError
from energy_iot.simulation.theft import TheftKind


def generate(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["generate", "--out", str(folder), *map(str, arguments)])


def test_options_choose_how_much_is_stolen_and_how(tmp_path: Path) -> None:
    def thefts(name: str, *arguments: object) -> pl.DataFrame:
        done = generate(tmp_path / name, "--meters", 60, "--days", 25, *arguments)
        assert done.exit_code == 0, done.output
        return pl.read_csv(tmp_path / name / "truth.csv").filter("is_theft")

    assert thefts("none", "--theft-share", 0, "--taps-share", 0).is_empty()
    some = thefts("some", "--theft-share", 0.5, "--theft-kinds", "slow_decline, bypass_period", "--taps-share", 1)
    assert set(some["kind"]) == {TheftKind.SLOW_DECLINE, TheftKind.BYPASS_PERIOD}  # no taps: not among the kinds
    assert 18 < some.height < 42
    old = thefts("old", "--theft-share", 0.5, "--theft-before-start", 1)
    assert (old["start_time"] < "2025-01-06").all()


def test_a_period_too_short_for_theft_says_so(tmp_path: Path) -> None:
    done = generate(tmp_path, "--meters", 2, "--days", 3)
    assert done.exit_code == 0
    assert "too few for a past and a theft" in done.stderr
    assert not (tmp_path / "truth.csv").read_text().count("true")


@pytest.mark.parametrize(
    ("arguments", "said", "cure"),
    [
        (("--theft-share", 8), "--theft-share 8.0 is no share", "from 0 to 1"),
        (("--taps-share", -1), "--taps-share -1.0 is no share", "from 0 to 1"),
        (("--theft-before-start", "nan"), "--theft-before-start nan is no share", "from 0 to 1"),
        (("--theft-kinds", "bypass"), "no kind of theft is called 'bypass'", "bypass_period"),
        (("--theft-kinds", ""), "no kind of theft is called ''", "type all"),
        (("--days", 100_000), "readings would lie in the future", "--days"),
    ],
)
def test_senseless_options_are_refused_with_a_cure(
    tmp_path: Path, arguments: tuple[object, ...], said: str, cure: str
) -> None:
    done = generate(tmp_path / "fleet", *arguments)
    assert isinstance(done.exception, UsageError)
    assert done.exception.exit_code == 2
    assert said in done.exception.problem
    assert cure in done.exception.fix
    assert not (tmp_path / "fleet").exists()


@pytest.mark.parametrize("arguments", [("--meters", 0), ("--days", "x"), ("--theft-share", "much"), ("--seed", -1)])
def test_what_is_no_number_or_too_small_is_refused(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    done = generate(tmp_path / "fleet", *arguments)
    assert done.exit_code == 2
    assert str(arguments[0]) in done.stderr
    assert not (tmp_path / "fleet").exists()


def test_help_names_every_kind() -> None:
    text = "".join(CliRunner().invoke(app, ["generate", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert all(kind in text for kind in TheftKind)
