"""The page as text: escaping, policy, order of headings, and what it says where parts are missing."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from energy_iot.cli import app
from energy_iot.ml.rank import Suspect
from energy_iot.reporting import report
from energy_iot.reporting.findings import Findings, NodeLoss
from energy_iot.reporting.report import DEFAULT_CAVEAT, by_month, render_report
from energy_iot.reporting.report_data import (
    Day,
    FailedExpectation,
    Gap,
    Gaps,
    HourOfWeek,
    MeterAnomalies,
    Model,
    Reject,
    ReportData,
    Run,
    ScoredReading,
    Scores,
    Sources,
    StepRun,
    Suite,
)
from energy_iot.settings import Settings

NOW = datetime(2026, 3, 2, 5)
HOSTILE = "</script><script>alert('m')</script><img src=x onerror=alert(1)>\" onclick=\"x"
BUNDLE = "window.vegaEmbed = async () => {}; // </script> in a comment"


CARD = {"features": [{"name": "ratio", "description": "over its own mean"}], "sha256": "9f", "scores": list(range(300))}


class Page(HTMLParser):
    """Elements, the text of each script, and all visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.codes: list[str] = []
        self._text: list[str] = []
        self._open: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))
        if tag == "code":
            self.codes.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._open != "style":
            self._text.append(data)
            if self._open == "code":
                self.codes[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).replace("\u202f", " ").split())


def reading(meter: str, score: float, kind: str | None) -> ScoredReading:
    return ScoredReading(1, meter, datetime(2026, 1, 9, 18, 30), 2.1, score, kind, 4.2, 3.14)


LOSS = NodeLoss("T01", "transformer", date(2026, 1, 1), date(2026, 3, 1), 9000, 7000, 500, 1500, 165_000, "XOF")


def suspect(meter: str, **changes: Any) -> Suspect:
    """A meter that fell to a third, of a tapped transformer."""
    known = Suspect(
        meter, 0.934, 1, 0.8, date(2026, 2, 11), 412.5, 45_375.0, "XOF", "T01", 0.17, "residential", None, None,
        None, "consumption fell to 0.31 of before; flat for 12 days", date(2026, 3, 1),
    )  # fmt: skip
    return replace(known, **changes)


def make_data(meter: str = "MTR-1", **changes: Any) -> ReportData:
    """A report with all its parts."""
    expectation = FailedExpectation(
        "staging_readings_suite", "expect_column_values_to_be_between", "temperature_c", "critical", 960, 3, 3 / 960,
        [{"meter_id": meter, "temperature_c": 99.5}],
        {"rule": "temperature is plausible", "max_value": 60, "table": "t"},
    )  # fmt: skip
    whole = ReportData(
        generated_at=NOW,
        run=Run("20260302T041200-0f3c2b1a", "succeeded", NOW, 48.2, "0.1.0", None),
        steps=(StepRun("ml_score", "succeeded", NOW, 9.3, 960, 960, ("2.4 % are anomalies",), {}, None),),
        suites=(Suite("staging_readings_suite", "r", NOW, 12, 1, 0, 2),),
        failures=(expectation,),
        sources=Sources(2, 970, 4, 6, (30,)),
        rejects=(Reject(f"no number: '{meter}'", 6),),
        meters=2,
        days=tuple(Day(date(2026, 1, 5) + timedelta(days=at), 21.5, 2, 96, 96, 1, 0, 0) for at in range(10)),
        gaps=Gaps(1, 4, 1, (Gap(meter, NOW, NOW + timedelta(hours=2), 4),)),
        week=tuple(HourOfWeek(day, hour, 0.2 + hour / 10, 20) for day in range(7) for hour in range(24)),
        scores=Scores(
            960, 10, 2, 2, 24, 1, 1, NOW, {"high_consumption": 10}, (reading(meter, 0.81, "high_consumption"),),
            (reading(meter, 0.41, None),), (MeterAnomalies(meter, 480, 10, 0, 0, 0.81),),
        ),
        agreement={"roc_auc": 0.913, "recall": None, "caveat": "Labels are made, not found."},
        threshold=0.6,
        model=Model(1, "isolation_forest_v1.joblib", "9f" * 32, NOW, 960, 0.6, CARD),
        findings=Findings((suspect(meter),), 2, (LOSS,)),
    )  # fmt: skip
    return replace(whole, **changes)


def render(data: ReportData, settings: Settings, **options: Any) -> Page:
    return Page(render_report(data, settings=settings, bundle=BUNDLE, **options))


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    return Settings(home=tmp_path)


def commands(page: Page) -> list[str]:
    return [code for code in page.codes if code.startswith("energy-iot ")]


def test_names_from_files_are_text_wherever_they_stand(settings: Settings) -> None:
    data = make_data(HOSTILE)
    data = replace(data, run=replace(data.run, status="failed", error=HOSTILE) if data.run else None)
    page = render(data, settings)
    assert page.text.count(HOSTILE) >= 6  # top readings, meters, gap, reject, example, run
    assert not [tag for tag, _ in page.elements if tag == "img"]
    plain = render(make_data("MTR-1"), settings)
    assert len(page.scripts) == len(plain.scripts)


def test_chart_data_survives_any_name(settings: Settings) -> None:
    page = render(make_data(HOSTILE), settings)
    specs = [json.loads(text) for kind, text in page.scripts if kind == "application/json"]
    names = {row.get("meter") for spec in specs for values in spec.get("datasets", {}).values() for row in values}
    assert HOSTILE in names


def test_the_policy_allows_these_scripts_and_nothing_else(settings: Settings) -> None:
    page = render(make_data(), settings)
    (policy,) = [
        attributes["content"] for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    allowed = re.search(r"script-src ([^;]+)", policy)
    assert allowed is not None
    run = [text for kind, text in page.scripts if kind is None]
    assert len(run) == 2
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert allowed[1].split() == [f"'sha256-{one}'" for one in hashes]


def test_nothing_is_fetched_and_nothing_handles_events_inline(settings: Settings) -> None:
    page = render(make_data(), settings, data_docs="data_docs/index.html")
    assert not [(tag, name) for tag, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [tag for tag, attributes in page.elements if "src" in attributes]
    links = {attributes.get("href") for tag, attributes in page.elements if tag in ("a", "link")}
    assert {link for link in links if link and not link.startswith("#")} == {"data:,", "data_docs/index.html"}


def test_headings_descend_one_level_at_a_time_and_links_lead_somewhere(settings: Settings) -> None:
    page = render(make_data(), settings)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.elements if tag == "a" and (a.get("href") or "").startswith("#")}
    labels = {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a}
    assert targets
    assert targets | labels <= set(ids)


def test_each_chart_has_words_beside_it(settings: Settings) -> None:
    page = render(make_data(), settings)
    pictures = [a for tag, a in page.elements if tag == "div" and a.get("role") == "img"]
    assert len(pictures) == 5
    assert all(len(picture["aria-label"] or "") > 40 for picture in pictures)


def test_the_whole_page_says_what_happened(settings: Settings) -> None:
    page = render(make_data(), settings, data_docs="data_docs/index.html")
    for said in (
        "10 of 960 readings (1 %) are unlike",
        "not proof of theft",
        "215 kWh",  # ten days of 21.5
        "4 readings missing in 1 gap",
        "1 critical expectation of the data is not met",
        "9 of 12 expectations met",
        "temperature is plausible",
        "at most 60",
        "meter_id MTR-1, temperature_c 99.5",
        "3.1 standard deviations above what this meter uses at this hour of the week",
        "Warning: 2.4 % are anomalies",
        "Labels are made, not found.",
        "ROC-AUC (0.5 is chance, 1 is perfect) 0.913",
        "All times are UTC",
        "ratio over its own mean",
        "scores 0, 1, 2 ... 299 (300 values)",
        "consumption fell to 0.31 of before",
        "412 kWh",
        "45,375 XOF",
        "1,500 kWh",
        "16.7 %",
    ):
        assert said in page.text, said


def test_what_speaks_against_a_suspect_is_said_too(settings: Settings) -> None:
    unlikely = suspect(
        "M1", reasons=None, suppressed_cause="vacancy", last_inspected_on=date(2026, 2, 20), last_found_theft=False,
        lost_kwh=None, lost_value=None, suspected_since=None, transformer_id=None,
    )  # fmt: skip
    text = render(make_data(findings=Findings((unlikely,), 1)), settings).text
    assert "nothing stands out by itself" in text
    assert "score taken down: vacancy" in text
    assert "inspected 2026-02-20: no theft found" in text
    assert "Where energy is lost" not in text


def test_without_a_list_or_a_network_their_parts_are_left_out(settings: Settings) -> None:
    page = render(make_data(findings=Findings()), settings)
    assert "Where to inspect first" not in page.text
    assert "Where energy is lost" not in page.text


def test_agreement_is_never_shown_without_a_caveat(settings: Settings) -> None:
    assert DEFAULT_CAVEAT in render(make_data(agreement={"roc_auc": 0.9, "caveat": None}), settings).text
    without = render(make_data(agreement=None), settings).text
    assert "Agreement with the labels" not in without
    assert DEFAULT_CAVEAT not in without


def test_the_last_work_of_an_idle_step_is_told(settings: Settings) -> None:
    idle = StepRun("ml_score", "skipped", NOW, 0.0, 0, 0, (), {"skipped": "up to date"}, None)
    worked = StepRun("ml_score", "succeeded", datetime(2026, 2, 1, 4), 9.3, 960, 955, (), {}, None)
    page = render(make_data(steps=(idle,), earlier_steps={"ml_score": worked}), settings)
    assert "Last worked 2026-02-01 04:00: 955 rows out, 9.3 s" in page.text
    assert "Last worked" not in render(make_data(earlier_steps={"ml_score": worked}), settings).text


@pytest.mark.parametrize("status", ["failed", "running"])
def test_a_run_that_did_not_succeed_is_the_first_thing_said(settings: Settings, status: str) -> None:
    failed = StepRun("ingest_data", status, NOW, 1.0, None, None, (), {}, "3 faults\n  fix: mend them")
    run = Run("r1", status, NOW, None, "0.1.0", "3 faults\n  fix: mend them" if status == "failed" else None)
    text = render(make_data(run=run, steps=(failed,)), settings).text
    said = "The last run failed in step ingest_data" if status == "failed" else "The last run has not ended"
    assert text.index(said) < text.index("Energy metered")


UNSCORED = tuple(replace(day, high_consumption=None) for day in make_data().days)
EMPTY: Mapping[str, Any] = {
    "suites": (), "failures": (), "sources": None, "rejects": (), "meters": 0, "days": (), "gaps": None, "week": (),
    "scores": None, "agreement": None, "threshold": None, "model": None, "steps": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said", "command"),
    [
        (EMPTY, "The first run has loaded nothing yet", "energy-iot run FILE"),
        (
            EMPTY | {"sources": Sources(1, 960, 0, 0, (30,))},
            "960 readings loaded, not transformed",
            "energy-iot transform",
        ),
        (EMPTY | {"run": None}, "No run is recorded", "energy-iot run FILE"),
        ({"scores": None, "days": UNSCORED}, "960 readings from 2 meters, not scored yet", "energy-iot score"),
        ({"week": ()}, "There are no hourly figures yet", "energy-iot transform intermediate"),
        ({"suites": (), "failures": ()}, "The data has not been judged yet", "energy-iot validate"),
        ({"model": None, "agreement": None}, "No model has been trained yet", "energy-iot train"),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_makes_it(
    settings: Settings, changes: dict[str, Any], said: str, command: str
) -> None:
    page = render(make_data(**changes), settings)
    assert said in page.text
    assert command in commands(page)


def test_the_commands_that_the_page_names_exist(settings: Settings) -> None:
    page = render(make_data(**EMPTY, run=None), settings)
    named = {command.split()[1] for command in commands(page)}
    assert {"run", "transform", "score", "train", "validate"} <= named
    assert named <= set(get_command(app).commands)


def test_no_library_is_sent_where_there_is_no_chart(settings: Settings) -> None:
    page = render(make_data(**EMPTY), settings)
    assert BUNDLE not in [text for _, text in page.scripts]
    assert len([kind for kind, _ in page.scripts if kind is None]) == 1


def test_one_reading_of_one_meter(settings: Settings) -> None:
    scores = Scores(1, 0, 1, 1, 1, 0, 1, NOW, {}, (), (reading("MTR-1", 0.4, None),), ())
    data = make_data(
        meters=1, days=(Day(date(2026, 1, 5), 0.5, 1, 1, 48, 0, 0, 0),), gaps=Gaps(0, 0, 0, ()), scores=scores,
        week=(HourOfWeek(1, 12, 1.0, 1),),
    )  # fmt: skip
    text = render(data, settings).text
    assert "None of 1 reading is unlike" in text
    assert "0.5 kWh on 5 Jan 2026, the only day there is" in text
    assert "no gap between first and last reading" in text
    assert "No reading scores above 0.6" in text


def test_a_single_meter_is_not_ranked(settings: Settings) -> None:
    scores = make_data().scores
    assert scores is not None
    page = render(make_data(scores=replace(scores, meters_scored=1)), settings)
    assert "There is a single meter" in page.text
    assert not [a for _, a in page.elements if a.get("id") == "meters-chart"]


def test_meters_with_few_readings_are_not_ranked(settings: Settings) -> None:
    scores = make_data().scores
    assert scores is not None
    page = render(make_data(scores=replace(scores, meters=(), meters_ranked=1)), settings)
    assert "have fewer than 24 readings each" in page.text


def luminance(colour: str) -> float:
    """Relative luminance; source: WCAG 2.2, "relative luminance"."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_reading_needs(scheme: int) -> None:
    style = (Path(report.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    palettes = [
        dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root {(.*?)}", style, re.S)
    ]
    assert len(palettes) == 2
    assert set(palettes[0]) == set(palettes[1])
    colours = palettes[scheme]

    def contrast(front: str, back: str) -> float:
        light, dark = sorted((luminance(colours[f"--{front}"]), luminance(colours[f"--{back}"])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    texts = ("ink", "muted", "high", "low", "unusual", "good", "bad", "warn")
    for front in texts:
        assert contrast(front, "paper") >= 4.5, front
    for back in ("bad-soft", "warn-soft", "note-soft", "sheet"):
        assert contrast("ink", back) >= 4.5, back
    for mark in ("energy", "other"):
        assert contrast(mark, "paper") >= 3, mark


def test_months_hold_what_their_days_held() -> None:
    days = make_data().days
    longer = [replace(day, day=day.day + timedelta(days=22)) for day in days]
    months = by_month(longer)
    assert [month.name for month in months] == ["January 2026", "February 2026"]
    assert sum(month.consumption_kwh for month in months) == pytest.approx(215)
    assert sum(month.anomalies or 0 for month in months) == 10
