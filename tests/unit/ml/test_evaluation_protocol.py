import json
from pathlib import Path
from typing import Any

import pytest

from energy_iot.errors import UsageError
from energy_iot.ml.evaluation.protocol import (
    DEVELOPMENT_KINDS,
    DEVELOPMENT_SEEDS,
    HELD_OUT_KINDS,
    FleetPlan,
    Purpose,
    detector_fingerprint,
    parse_seeds,
    plan_fleets,
    read_spent_seeds,
    write_spent_seeds,
)
from energy_iot.simulation.theft import TheftKind

THIS = "this detector"


def plan(purpose: Purpose, **asked: Any) -> list[int]:
    fleets = plan_fleets(purpose, **({"detector": THIS, "spent": {}} | asked))
    return [fleet.seed for fleet in fleets]


def test_every_kind_of_theft_is_either_developed_with_or_held_out() -> None:
    assert sorted((*DEVELOPMENT_KINDS, *HELD_OUT_KINDS)) == sorted(TheftKind)
    assert HELD_OUT_KINDS == ("random_under_registration", "day_reversal")


@pytest.mark.parametrize("kind", HELD_OUT_KINDS)
def test_development_fleets_have_no_held_out_kind(kind: str) -> None:
    with pytest.raises(UsageError, match=kind):
        FleetPlan(Purpose.DEVELOPMENT, 1, kinds=("bypass_period", kind))
    assert FleetPlan(Purpose.EVALUATION, 101, kinds=(kind,)).kinds == (kind,)


def test_fleets_have_the_kinds_of_their_purpose() -> None:
    (developed,) = plan_fleets(Purpose.DEVELOPMENT, seeds=(3,), detector=THIS, spent={})
    (evaluated,) = plan_fleets(Purpose.EVALUATION, seeds=(103,), detector=THIS, spent={})
    assert developed.kinds == DEVELOPMENT_KINDS
    assert set(evaluated.kinds) == set(TheftKind)


@pytest.mark.parametrize("seed", [0, 10, 100, 101, 5000])
def test_development_takes_no_other_seeds(seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed {seed}"):
        plan(Purpose.DEVELOPMENT, seeds=(1, seed))
    with pytest.raises(UsageError):
        FleetPlan(Purpose.DEVELOPMENT, seed)


@pytest.mark.parametrize("seed", [0, *DEVELOPMENT_SEEDS, 10, 100])
def test_evaluation_takes_no_seed_of_development(seed: int) -> None:
    with pytest.raises(UsageError, match="would flatter"):
        plan(Purpose.EVALUATION, seeds=(101, seed))


def test_the_first_seeds_that_are_allowed_are_taken() -> None:
    assert plan(Purpose.DEVELOPMENT, fleets=3) == [1, 2, 3]
    assert plan(Purpose.EVALUATION) == [101, 102, 103, 104, 105]
    with pytest.raises(UsageError, match="9 development fleets"):
        plan(Purpose.DEVELOPMENT, fleets=10)


def test_seeds_of_another_version_are_spent_and_own_ones_may_be_reproduced() -> None:
    spent = {101: [THIS], 102: ["another"], 103: ["another", THIS]}
    assert plan(Purpose.EVALUATION, fleets=3, spent=spent) == [101, 104, 105]
    assert plan(Purpose.EVALUATION, seeds=(101,), spent=spent) == [101]
    for seed in (102, 103):
        with pytest.raises(UsageError, match=f"seed {seed}: another version"):
            plan(Purpose.EVALUATION, seeds=(101, seed), spent=spent)
    assert plan(Purpose.EVALUATION, seeds=(102,), spent=spent, repeat=True) == [102]
    assert plan(Purpose.EVALUATION, fleets=3, spent=spent, repeat=True) == [101, 102, 103]


def test_a_fleet_counts_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        plan(Purpose.EVALUATION, seeds=(101, 101))


def test_spent_seeds_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "seeds.json"
    assert read_spent_seeds(file) == {}
    write_spent_seeds(file, {}, [103, 101], "one")
    write_spent_seeds(file, read_spent_seeds(file), [101, 110], "two")
    write_spent_seeds(file, read_spent_seeds(file), [101], "two")
    assert read_spent_seeds(file) == {101: ["one", "two"], 103: ["one"], 110: ["two"]}


@pytest.mark.parametrize("content", ["", "[1]", '{"x": []}', '{"101": 3}'])
def test_a_damaged_list_of_spent_seeds_is_no_empty_one(tmp_path: Path, content: str) -> None:
    file = tmp_path / "seeds.json"
    file.write_text(content)
    with pytest.raises(UsageError, match="which seeds are spent"):
        read_spent_seeds(file)


@pytest.mark.parametrize("text", ["x", "101-", "105-101", "-5", "1.5", "1 2"])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no seed"):
        parse_seeds(text)


def test_seeds_may_be_ranges() -> None:
    assert parse_seeds("") == ()
    assert parse_seeds("101, 103-105") == (101, 103, 104, 105)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (
        "src/energy_iot/ml/suspicion.py",
        "src/energy_iot/ml/evaluate.py",
        "src/energy_iot/ml/evaluation/metrics.py",
        "src/energy_iot/simulation/theft.py",
        "dbt/models/intermediate/int_meter_features.sql",
        "dbt/models/intermediate/_models.yml",
        "dbt/macros/time.sql",
        "configs/energy_iot.toml",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "decides"),
    [
        ("src/energy_iot/ml/suspicion.py", True),
        ("dbt/models/intermediate/int_meter_features.sql", True),
        ("dbt/macros/time.sql", True),
        ("configs/energy_iot.toml", True),
        ("src/energy_iot/ml/evaluate.py", False),
        ("src/energy_iot/ml/evaluation/metrics.py", False),
        ("src/energy_iot/simulation/theft.py", False),
        ("dbt/models/intermediate/_models.yml", False),
    ],
)
def test_the_fingerprint_is_of_what_ranks_the_meters(project: Path, name: str, decides: bool) -> None:
    before = detector_fingerprint(project)
    assert before == detector_fingerprint(project)
    (project / name).write_text("2")
    assert (detector_fingerprint(project) != before) == decides


def test_an_installed_package_alone_is_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no code of the detector"):
        detector_fingerprint(tmp_path)


def test_the_list_of_spent_seeds_in_the_project_can_be_read() -> None:
    from energy_iot.ml.evaluate import SPENT_SEEDS

    assert SPENT_SEEDS.parent.name == "docs"
    assert json.dumps(read_spent_seeds(SPENT_SEEDS))
