import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from energy_iot.errors import ModelError, UsageError
from energy_iot.ml import evaluate as evaluate_module
from energy_iot.ml.evaluate import evaluate
from energy_iot.ml.evaluation import summary as summary_module
from energy_iot.ml.evaluation.fleet_run import SUSPICION, FleetResult, read_ranking, refuse_unranked, run_command
from energy_iot.ml.evaluation.metrics import bootstrap_weights, levels_of, point_figures, roc_auc
from energy_iot.ml.evaluation.network import TransformerMonth
from energy_iot.ml.evaluation.protocol import FleetPlan, Purpose, read_spent_seeds
from energy_iot.ml.evaluation.summary import COMPARED_WITH, Summary, inspection_chances, summarise
from energy_iot.ml.evaluation.table import HEADINGS, Facts, describe_fleet, write_page
from energy_iot.ml.evaluation.truth import NOTHING, FleetTruth
from energy_iot.reporting.formats import duration
from energy_iot.reporting.progress import Progress
from tests.known_figures import known

METERS = 200
KINDS = ("bypass_period", "day_reversal", "slow_decline")


def fleet(seed: int, *, skill: float = 3.0, purpose: Purpose = Purpose.EVALUATION) -> FleetResult:
    """A fleet of 200 meters, 15 thieves in three kinds; the suspicion score sees them, the recipe does not."""
    random = np.random.default_rng(seed)
    meters = tuple(f"M{number:03d}" for number in range(METERS))
    kinds = {meter: KINDS[number % 3] for number, meter in enumerate(meters[:15])}
    truth = FleetTruth(
        meters,
        kinds,
        {meter: 10.0 * (number + 1) for number, meter in enumerate(kinds)},
        {meters[20]: frozenset({"vacancy"}), meters[21]: frozenset({"vacancy", "growth"})},
        (),
    )
    noise = random.normal(0, 1, METERS)
    seen = {meter: float(value + skill * (meter in kinds)) for meter, value in zip(meters, noise, strict=True)}
    seen[meters[20]] = 99.0  # a false alarm
    blind = {meter: float(value) for meter, value in zip(meters, random.normal(0, 1, METERS), strict=True)}
    transformers = tuple(
        TransformerMonth(f"T{number}", 0.2 if number == 3 else 0.02, 1000.0, 100.0 if number == 3 else 0.0)
        for number in range(10)
    )
    plan = FleetPlan(purpose, seed, METERS, 120)
    scores = {SUSPICION: seen, "random": {}, COMPARED_WITH: blind}
    return FleetResult(plan, truth, scores, transformers, 1_152_000, {"generate": 3.0, "run": 61.0, "baselines": 9.0})


FLEETS = [fleet(101), fleet(102, skill=1.0)]
SUMMARY = summarise(FLEETS)


def facts(**changed: Any) -> Facts:
    made = Facts(
        date="2025-06-01", command="energy-iot evaluate", version="0.4.0", detector="ab" * 32, purpose="evaluation",
        repeated=False, seconds=150.0, processors=2, fleets=tuple(describe_fleet(one) for one in FLEETS),
    )  # fmt: skip
    return replace(made, **changed)


def test_figures_are_the_mean_of_the_fleets_own() -> None:
    for name in FLEETS[0].scores:
        own = [point_figures(one.truth.ranking(one.scores[name])) for one in FLEETS]
        assert [SUMMARY.fleets[seed][name] for seed in (101, 102)] == own
        for key, figure in SUMMARY.rankings[name].items():
            assert figure.value == pytest.approx(np.mean([one[key] for one in own]))


def test_intervals_hold_the_figure_and_are_narrower_with_more_fleets() -> None:
    alone = summarise(FLEETS[1:])
    for name in (SUSPICION, COMPARED_WITH):
        one, two = alone.rankings[name]["roc_auc"], SUMMARY.rankings[name]["roc_auc"]
        low, value, high = known(one.low, one.value, one.high)
        assert low < value < high
        narrower_low, narrower_high = known(two.low, two.high)
        assert narrower_high - narrower_low < high - low
    assert SUMMARY.rankings["random"]["roc_auc"] == replace(
        SUMMARY.rankings["random"]["roc_auc"], value=0.5, low=0.5, high=0.5
    )


def test_the_interval_is_the_percentiles_of_a_thousand_resamples() -> None:
    one = FLEETS[1]
    ranking = one.truth.ranking(one.scores[SUSPICION])
    drawn = np.concatenate(
        [bootstrap_weights(METERS, 100, seed=[20_250_106, 102, part]) for part in range(0, 1000, 100)]
    )
    low, high = np.quantile(roc_auc(levels_of(ranking, drawn)), [0.025, 0.975])
    figure = summarise([one]).rankings[SUSPICION]["roc_auc"]
    assert (figure.low, figure.high) == pytest.approx((low, high))


def test_the_gain_is_measured_on_the_same_draws() -> None:
    ours, theirs = known(*(SUMMARY.rankings[name]["roc_auc"].value for name in (SUSPICION, COMPARED_WITH)))
    low, gain = known(SUMMARY.gain.low, SUMMARY.gain.value)
    assert gain == pytest.approx(ours - theirs)
    assert 0 < low < gain


def test_kinds_count_all_their_thieves_alike() -> None:
    """A kind's ROC-AUC over all fleets is the mean over its thieves of the innocent meters below each."""
    for found in SUMMARY.kinds:
        below = []
        for one in FLEETS:
            ranking = one.truth.ranking(one.scores[SUSPICION], found.kind)
            innocent = ranking.scores[ranking.innocent]
            below += [np.mean(innocent < score) for score in ranking.scores[ranking.is_theft]]
        assert found.meters == len(below) == 10
        assert found.figures["roc_auc"].value == pytest.approx(np.mean(below))
        assert found.roc_auc["random"] == 0.5
        assert not {key for key in found.figures if key.startswith("precision")}
    assert [found.kind for found in SUMMARY.kinds] == list(KINDS)


def test_false_alarms_by_what_happened() -> None:
    alarms = {one.cause: (one.meters, one.alarms) for one in SUMMARY.causes}
    assert list(alarms) == [NOTHING, "growth", "vacancy"]
    assert (alarms["vacancy"][0], alarms["growth"][0], alarms[NOTHING][0]) == (4, 2, 2 * (METERS - 15 - 2))
    assert alarms["vacancy"][1][SUSPICION] >= 0.5
    assert alarms[NOTHING][1]["random"] == pytest.approx(0.05)


def test_chances_of_inspection_add_up_to_the_budget() -> None:
    for name in FLEETS[0].scores:
        chances = inspection_chances(FLEETS[0].truth.ranking(FLEETS[0].scores[name]), 0.05)
        assert chances.sum() == pytest.approx(10)
        assert ((chances >= 0) & (chances <= 1)).all()


def test_the_page_has_every_fleet_kind_cause_and_ranking() -> None:
    page = write_page(facts(), SUMMARY)
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for text in (*FLEETS[0].scores, *HEADINGS.values(), "101", "102", "bypass period", "day reversal *", "vacancy"):
        assert any(f"| {text} " in row for row in rows), text
    for text in (
        "2025-06-01",
        "0.4.0",
        "abababababab",
        "energy-iot evaluate",
        "1,152,000",
        "2 processors",
        duration(61),
    ):
        assert text in page, text
    assert "no evaluation" not in page


def test_every_table_is_whole() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", write_page(facts(), SUMMARY), re.MULTILINE)
    assert len(tables) == 8
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def targets(summary: Summary) -> list[str]:
    page = write_page(facts(), summary)
    table = page[page.index("| target") : page.index("## All rankings")].strip().splitlines()
    return [line.split("|")[-2].strip() for line in table[2:]]


def test_targets_say_what_was_not_reached() -> None:
    assert targets(summarise([fleet(101, skill=9.0)])) == ["yes", "yes", "**no**", "yes"]  # the alarm is at the top
    assert targets(summarise([fleet(101, skill=0.0)])) == ["**no**", "**no**", "**no**", "yes"]


def test_taps_that_cannot_all_be_at_the_top_are_no_failure() -> None:
    tapped = tuple(
        TransformerMonth(f"T{number}", 1 - number / 10, 1000.0, 100.0 * (number < 3)) for number in range(10)
    )
    page = write_page(facts(), summarise([replace(FLEETS[0], transformers=tapped)]))
    assert "1 of 3, room for 1" in page
    without = write_page(facts(), summarise([replace(FLEETS[0], transformers=())]))
    assert "transformers with taps" in without


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"purpose": "development"}, "flatter it, and are no evaluation"), ({"repeated": True}, "no evaluation.")],
)
def test_what_is_no_evaluation_says_so_on_top(changed: Mapping[str, Any], told: str) -> None:
    assert told in " ".join(write_page(facts(**changed), SUMMARY).split("##")[0].split())


# --- evaluating -----------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's page and list of spent seeds, elsewhere; fleets are made by `fleet`."""
    monkeypatch.setattr(evaluate_module, "PAGE", tmp_path / "docs" / "evaluation.md")
    monkeypatch.setattr(evaluate_module, "SPENT_SEEDS", tmp_path / "docs" / "evaluation_seeds.json")
    monkeypatch.setattr(evaluate_module, "detector_fingerprint", lambda: "this version")
    monkeypatch.setattr(summary_module, "BOOTSTRAP_SAMPLES", 50)  # what is tested here is not the intervals
    (tmp_path / "docs").mkdir()

    def run(plan: FleetPlan, folder: Path, progress: Progress) -> FleetResult:
        assert not list(folder.iterdir())
        return fleet(plan.seed, purpose=plan.purpose)

    monkeypatch.setattr(evaluate_module, "run_fleet", run)
    return tmp_path / "docs"


def run_evaluation(purpose: Purpose, **asked: Any) -> Any:
    wanted = {"fleets": 2, "meters": METERS, "days": 120, "interval_minutes": 30, "command": "energy-iot evaluate"}
    return evaluate(purpose, **(wanted | asked))


def test_an_evaluation_writes_its_page_its_record_and_the_seeds_it_spent(places: Path) -> None:
    done = run_evaluation(Purpose.EVALUATION)
    assert done.page == places / "evaluation.md"
    record = json.loads((places / "evaluation.json").read_text())
    assert [one["seed"] for one in record["facts"]["fleets"]] == [101, 102]
    assert (
        record["summary"]["rankings"][SUSPICION]["roc_auc"]["value"]
        == done.summary.rankings[SUSPICION]["roc_auc"].value
    )
    assert read_spent_seeds(places / "evaluation_seeds.json") == {seed: ["this version"] for seed in (101, 102)}


def test_the_same_version_repeats_its_evaluation_and_another_takes_fresh_seeds(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_evaluation(Purpose.EVALUATION)
    again = run_evaluation(Purpose.EVALUATION)
    assert again.summary == first.summary
    assert [one["seed"] for one in again.facts.fleets] == [101, 102]
    page = (places / "evaluation.md").read_text()
    monkeypatch.setattr(evaluate_module, "detector_fingerprint", lambda: "a later version")
    with pytest.raises(UsageError, match="seed 102: another version"):
        run_evaluation(Purpose.EVALUATION, seeds=(102,))
    assert (places / "evaluation.md").read_text() == page
    later = run_evaluation(Purpose.EVALUATION)
    assert [one["seed"] for one in later.facts.fleets] == [103, 104]
    assert not later.facts.repeated
    repeated = run_evaluation(Purpose.EVALUATION, seeds=(101,), repeat=True)
    assert repeated.facts.repeated
    assert "no evaluation" in (places / "evaluation.md").read_text()


def test_development_leaves_the_page_and_the_seeds_alone(places: Path, tmp_path: Path) -> None:
    assert run_evaluation(Purpose.DEVELOPMENT).page is None
    assert not list(places.iterdir())
    elsewhere = tmp_path / "tuning" / "seeds_1_2.md"
    run_evaluation(Purpose.DEVELOPMENT, page=elsewhere)
    assert "development fleets" in elsewhere.read_text()
    assert not list(places.iterdir())
    with pytest.raises(UsageError, match="do not belong"):
        run_evaluation(Purpose.DEVELOPMENT, page=places / "evaluation.md")


def test_no_figure_is_told_and_no_seed_spent_before_all_fleets_are_done(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Notes(Progress):
        def note(self, message: str) -> None:
            told.append(message)

    def fail(plan: FleetPlan, folder: Path, progress: Progress) -> FleetResult:
        if plan.seed == 102:
            raise ModelError("it broke", fix="mend it")
        return fleet(plan.seed)

    monkeypatch.setattr(evaluate_module, "run_fleet", fail)
    with pytest.raises(ModelError, match="it broke"):
        run_evaluation(Purpose.EVALUATION, progress=Notes())
    assert told == ["fleet 1 of 2: seed 101, 200 meters, 120 days", "fleet 2 of 2: seed 102, 200 meters, 120 days"]
    assert not list(places.iterdir())


# --- what commands print --------------------------------------------------------------------------------------------


def test_a_ranking_is_read_as_it_is_printed() -> None:
    assert read_ranking(b"meter_id,score,reasons\n007,0.9,x\nM2,,y\n") == {"007": 0.9}


@pytest.mark.parametrize("printed", [b"score,meter_id\n0.9,M1\n", b"meter_id,score\nM1,0.9\nM1,0.8\n"])
def test_a_ranking_of_another_form_is_refused(printed: bytes) -> None:
    with pytest.raises(ModelError, match="must print meter_id,score"):
        read_ranking(printed)


def test_a_list_of_strangers_or_nobody_is_refused() -> None:
    one = FLEETS[0]
    for ranked in ({}, {"M000": 0.5, "X": 0.4}):
        with pytest.raises(ModelError, match="seed 101: the ranking names"):
            refuse_unranked(ranked, one.truth, one.plan)
    refuse_unranked({"M000": 0.5}, one.truth, one.plan)


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"rank --nonsense` ended with exit code 2"):
        run_command(tmp_path, tmp_path / "home", "rank", "--nonsense")


def test_the_callers_settings_do_not_reach_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGY_IOT_TREES", "77")
    shown = json.loads(run_command(tmp_path, tmp_path / "home", "config", "show", "--json"))
    trees = next(row for row in shown if row["setting"] == "trees")
    assert (trees["value"], trees["origin"]) == (100, "default")
