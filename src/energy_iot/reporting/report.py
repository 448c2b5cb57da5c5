"""One HTML page about the last run and what the stores hold: self-contained, made to be sent by mail and printed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from energy_iot.errors import StorageError
from energy_iot.ml.rank import explanations, shortened
from energy_iot.pipeline import STEPS, Step
from energy_iot.reporting import charts, formats, sentences
from energy_iot.reporting.findings import LOSS_MONTHS
from energy_iot.reporting.page import render_page, replace_file, vega_bundle
from energy_iot.reporting.report_data import (
    KINDS,
    TOP_ANOMALIES,
    Day,
    HourOfWeek,
    ReportData,
    StepRun,
    nothing_to_report,
    read_report_data,
)
from energy_iot.settings import Settings
from energy_iot.storage.postgres import open_postgres

REPORT_NAME: Final = "report.html"
DATA_DOCS: Final = Path("data_docs") / "index.html"
MONTHS_SHOWN: Final = 120
SHOWN_REASONS: Final = 3
AGREEMENT_NAMES: Final = {
    "roc_auc": "ROC-AUC (0.5 is chance, 1 is perfect)",
    "average_precision": "Average precision",
    "precision": "Precision at the threshold",
    "recall": "Recall at the threshold",
}
CARD_SHOWN: Final = {"features", "model_version", "model_file", "sha256", "trained_at", "score_threshold"}
DEFAULT_CAVEAT: Final = "Agreement with labels says as much as the labels do; how these were made is not known."


@dataclass(frozen=True)
class Month:
    """The fleet in one calendar month."""

    name: str
    consumption_kwh: float
    days: int
    completeness: float
    anomalies: int | None


def write_report(settings: Settings, destination: Path | None = None) -> Path:
    """Write the report; a reader of the old page never sees half a new one.

    Args:
        settings: Where the data is, and the thresholds that the page names.
        destination: The file to write, `report.html` in the reports folder by default.

    Returns:
        The absolute path of the page.

    Raises:
        UsageError: There is nothing to report yet.
        StorageError: The database cannot be reached, or the file not written.
    """
    if settings.postgres_dsn is None and not (settings.home / "postgres").exists():
        raise nothing_to_report()  # rather than start an empty database to find out
    destination = (destination or settings.reports_dir / REPORT_NAME).expanduser().absolute()
    with open_postgres(settings) as postgres:
        data = read_report_data(postgres)
    docs = settings.reports_dir / DATA_DOCS
    page = render_report(
        data,
        settings=settings,
        bundle=vega_bundle(settings.home / "cache"),
        data_docs=quote(os.path.relpath(docs, destination.parent)) if docs.is_file() else None,
    )
    try:
        replace_file(destination, page)
    except OSError as error:
        raise StorageError(
            f"{destination}: the report cannot be written: {error.strerror or error}",
            fix="choose another place, or make room and allow writing there",
        ) from error
    return destination


def render_report(data: ReportData, *, settings: Settings, bundle: str, data_docs: str | None = None) -> str:
    """The page as HTML text.

    Args:
        data: What to show.
        settings: For `min_completeness` and, before there is a model, `score_threshold`.
        bundle: The charts' library, from `vega_bundle`.
        data_docs: Link to Data Docs, URL-quoted, or None where there are none.
    """
    threshold = settings.score_threshold if data.threshold is None else data.threshold
    specs, texts = make_charts(data, threshold=threshold, min_completeness=settings.min_completeness)
    features, card = _card(data)
    agreement, caveat = _agreement(data)
    failed_critical = sum(suite.failed_critical for suite in data.suites)
    steps = _steps(data)
    return render_page(
        "report.html.j2",
        specs=specs,
        bundle=bundle,
        data=data,
        texts=texts,
        kinds=_kinds(data),
        threshold=threshold,
        heading=sentences.heading(data),
        period=sentences.period(data),
        cadence=sentences.cadence(data),
        notices=sentences.notices(data),
        kinds_sentence=sentences.kinds(data),
        score_commands=[sentences.command("ml_score"), sentences.command("dbt_run_marts")],
        expectations=sum(suite.expectations for suite in data.suites),
        failed_critical=failed_critical,
        met=sum(suite.met for suite in data.suites),
        failed_warning=sum(suite.failed_warning for suite in data.suites),
        top=data.scores.top[:TOP_ANOMALIES] if data.scores else (),
        months=by_month(data.days)[-MONTHS_SHOWN:],
        weekdays=_weekdays(data.week),
        average_day=charts.average_day(data.week),
        heat_bounds=charts.heat_bounds(data.week),
        steps=steps,
        run_is_partial=any(earlier for _, _, earlier in steps),
        data_docs=data_docs,
        features=features,
        card=card,
        agreement=agreement,
        caveat=caveat,
        findings=data.findings,
        explanations=lambda suspect: shortened(explanations(suspect), SHOWN_REASONS),
        loss_months=LOSS_MONTHS,
    )


def make_charts(
    data: ReportData, *, threshold: float, min_completeness: float
) -> tuple[dict[str, charts.Spec], dict[str, str]]:
    """A specification for each chart that has something to show, and a sentence for each that says what is seen."""
    specs: dict[str, charts.Spec] = {}
    texts: dict[str, str] = {}
    if data.days:
        specs["consumption"] = charts.consumption_chart(data.days, min_completeness=min_completeness)
        texts["consumption"] = sentences.consumption(data, min_completeness=min_completeness)
        if any(day.anomalies for day in data.days):
            specs["anomalies"] = charts.anomalies_chart(data.days)
            texts["anomalies"] = sentences.anomalies_over_time(data.days)
    if data.week:
        specs["heat"], texts["heat"] = charts.heat_map(data.week), sentences.heat(data)
    if data.scores:
        specs["score"] = charts.score_chart(data.scores, threshold=threshold)
        texts["score"] = sentences.scatter(data, threshold=threshold)
        if data.scores.meters:
            share = data.scores.anomalies / data.scores.readings
            specs["meters"] = charts.meters_chart(data.scores.meters, fleet_share=share)
            texts["meters"] = sentences.meters(data)
    return specs, texts


def by_month(days: Sequence[Day]) -> list[Month]:
    """Sum days to calendar months."""
    months = []
    for _, group in groupby(days, key=lambda day: (day.day.year, day.day.month)):
        members = list(group)
        expected = sum(day.expected_reading_count for day in members)
        months.append(
            Month(
                name=f"{members[0].day:%B %Y}",
                consumption_kwh=sum(day.consumption_kwh for day in members),
                days=len(members),
                completeness=sum(day.reading_count for day in members) / expected if expected else 0.0,
                anomalies=sum(day.anomalies or 0 for day in members) if members[0].anomalies is not None else None,
            )
        )
    return months


def _steps(data: ReportData) -> list[tuple[Step, StepRun | None, StepRun | None]]:
    """Each step with what it did in the last run, and, where that was nothing, the last time it worked."""
    done = {step.step: step for step in data.steps}
    rows: list[tuple[Step, StepRun | None, StepRun | None]] = []
    for step in STEPS:
        now = done.get(step.name)
        idle = now is None or now.status == "skipped"
        rows.append((step, now, data.earlier_steps.get(step.name) if idle else None))
    return rows


def _kinds(data: ReportData) -> dict[str, list[str]]:
    """The types of anomaly that each chart shows, for its legend."""
    scores = data.scores
    return {
        "score": [kind for kind in KINDS if scores and any(reading.anomaly_type == kind for reading in scores.top)],
        "meters": [kind for kind in KINDS if scores and any(getattr(meter, kind) for meter in scores.meters)],
        "anomalies": [kind for kind in KINDS if any(getattr(day, kind) for day in data.days)],
    }


def _weekdays(week: Sequence[HourOfWeek]) -> list[tuple[str, list[float | None]]]:
    """Monday to Sunday, each with the mean power of its 24 hours."""
    power = {(cell.day_of_week, cell.hour_of_day): cell.avg_power_kw for cell in week}
    return [(charts.WEEKDAYS[day], [power.get((day, hour)) for hour in range(24)]) for day in (1, 2, 3, 4, 5, 6, 0)]


def _card(data: ReportData) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """The features in order, each with what it is, and what else the card holds that the page does not say already."""
    if data.model is None:
        return [], {}
    card = data.model.card
    features = [
        (str(feature["name"]), str(feature.get("description", ""))) if isinstance(feature, dict) else (str(feature), "")
        for feature in card.get("features", [])
    ]
    return features, {key: value for key, value in card.items() if key not in CARD_SHOWN}


def _agreement(data: ReportData) -> tuple[list[tuple[str, Any]], str]:
    """Figures with names for people, and the caveat that always stands beside them."""
    if not data.agreement:
        return [], DEFAULT_CAVEAT
    figures = dict(data.agreement)
    caveat = figures.pop("caveat", None) or DEFAULT_CAVEAT
    known = [(name, figures.pop(key)) for key, name in AGREEMENT_NAMES.items() if key in figures]
    return [*known, *((formats.words(key).capitalize(), value) for key, value in figures.items())], str(caveat)
