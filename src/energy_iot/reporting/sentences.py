"""What the figures say, in sentences: the report's headings, summaries of its charts, and notices."""

from dataclasses import dataclass
from typing import Final, Literal

from energy_iot.pipeline import find_step
from energy_iot.reporting import formats
from energy_iot.reporting.charts import BARS_UP_TO_DAYS, WEEKDAYS, WEEKLY_LINE_BEYOND_DAYS, WEEKS_BEYOND_DAYS, by_week
from energy_iot.reporting.report_data import Day, ReportData

NBSP: Final = formats.THIN


@dataclass(frozen=True)
class Notice:
    """Something to know before any figure; `target` is the section that tells more."""

    level: Literal["failure", "warning", "note"]
    text: str
    target: str


def command(step: str) -> str:
    """What to type for one step: energy-iot transform marts."""
    return " ".join(("energy-iot", *find_step(step).command))


def heading(data: ReportData) -> str:
    """The one sentence a reader should take away."""
    if data.scores and data.scores.anomalies:
        scores = data.scores
        share = formats.share(scores.anomalies / scores.readings)
        verb = "is unlike its" if scores.anomalies == 1 else "are unlike their"
        of_all = f"{formats.count(scores.anomalies)} of {formats.plural(scores.readings, 'reading')}"
        return f"{of_all} ({share}) {verb} meter\u2019s own past"
    if data.scores:
        return f"None of {formats.plural(data.scores.readings, 'reading')} is unlike its meter\u2019s own past"
    if data.readings:
        return f"{formats.plural(data.readings, 'reading')} from {formats.plural(data.meters, 'meter')}, not scored yet"
    if data.sources:
        return f"{formats.plural(data.sources.readings_loaded, 'reading')} loaded, not transformed yet"
    return "The first run has loaded nothing yet"


def period(data: ReportData) -> str | None:
    """First to last day with readings."""
    if not data.days:
        return None
    first, last = data.days[0].day, data.days[-1].day
    if first == last:
        return formats.day(first)
    return f"{formats.day(first)} to {formats.day(last)}"


def cadence(data: ReportData) -> str | None:
    """How often the meters read, from the files: a reading each minute."""
    if data.sources is None:
        return None
    steps = [
        "minute" if minutes == 1 else "hour" if minutes == 60 else f"{minutes}{NBSP}minutes"
        for minutes in data.sources.intervals_minutes
    ]
    return f"a reading every {' or '.join(steps)}"


def notices(data: ReportData) -> tuple[Notice, ...]:
    """What went wrong or is odd, the worst first."""
    found = []
    if data.run and data.run.status == "failed":
        failed = next((step.step for step in data.steps if step.status == "failed"), None)
        older = " What is shown below is what the tables held when this page was made." if data.days else ""
        found.append(Notice("failure", f"The last run failed{f' in step {failed}' if failed else ''}.{older}", "run"))
    critical = sum(suite.failed_critical for suite in data.suites)
    if critical:
        found.append(
            Notice(
                "failure",
                f"{formats.plural(critical, 'critical expectation')} of the data {'is' if critical == 1 else 'are'} "
                "not met: read the figures below with that in mind.",
                "quality",
            )
        )
    if data.run and data.run.status == "running":
        found.append(Notice("note", "The last run has not ended; its later steps are not in these figures.", "run"))
    milder = sum(suite.failed_warning for suite in data.suites)
    if milder:
        found.append(
            Notice("warning", f"{formats.plural(milder, 'milder expectation')} of the data not met.", "quality")
        )
    warnings = sum(len(step.warnings) for step in data.steps)
    if warnings:
        found.append(Notice("warning", f"The last run gave {formats.plural(warnings, 'warning')}.", "run"))
    return tuple(found)


def consumption(data: ReportData, *, min_completeness: float) -> str:
    """Mean, highest and lowest complete day; how many days are incomplete."""
    days = data.days
    whole = [day for day in days if day.completeness >= min_completeness] or list(days)
    high = max(whole, key=lambda day: day.consumption_kwh)
    low = min(whole, key=lambda day: day.consumption_kwh)
    if len(days) == 1:
        return f"{formats.energy(high.consumption_kwh)} on {formats.day(high.day)}, the only day there is."
    mean = sum(day.consumption_kwh for day in whole) / len(whole)
    text = (
        f"{formats.energy(mean)} on an average day; most on {formats.day(high.day)} "
        f"({formats.energy(high.consumption_kwh)}), least on {formats.day(low.day)} "
        f"({formats.energy(low.consumption_kwh)})."
    )
    partial = len(days) - len(whole)
    absent = (days[-1].day - days[0].day).days + 1 - len(days)
    if partial:
        text += (
            f" {formats.plural(partial, 'day')} with less than {formats.share(min_completeness)} of the expected "
            f"readings {'is' if partial == 1 else 'are'} drawn hollow and left out of these figures."
        )
    if absent:
        text += f" {formats.plural(absent, 'day')} without any reading."
    span = (days[-1].day - days[0].day).days + 1
    if span > WEEKLY_LINE_BEYOND_DAYS:
        text += " Thin line: each week; thick line: the mean of the four weeks up to it."
    elif span > BARS_UP_TO_DAYS:
        text += " Thin line: each day; thick line: the mean of the seven days up to it."
    return text


def anomalies_over_time(days: tuple[Day, ...]) -> str:
    """On how many days there were anomalies, and when most."""
    total = sum(day.anomalies or 0 for day in days)
    if not total:
        return "No anomaly on any day."
    weekly = (days[-1].day - days[0].day).days + 1 > WEEKS_BEYOND_DAYS
    busiest = max(by_week(days) if weekly else days, key=lambda day: day.anomalies or 0)
    hit = sum(bool(day.anomalies) for day in days)
    most = f"{'in the week of' if weekly else 'on'} {formats.day(busiest.day)} ({formats.count(busiest.anomalies)})"
    return f"Anomalies on {formats.count(hit)} of {formats.plural(len(days), 'day')}; most {most}."


def heat(data: ReportData) -> str:
    """The hours of highest and lowest mean power."""
    high = max(data.week, key=lambda cell: cell.avg_power_kw)
    low = min(data.week, key=lambda cell: cell.avg_power_kw)
    if high == low:
        return "Readings in a single hour of the week: no pattern to see yet."

    def name(day: int, hour: int) -> str:
        return f"{WEEKDAYS[day]} {hour:02d}:00"

    return (
        f"Highest on {name(high.day_of_week, high.hour_of_day)} ({formats.figure(high.avg_power_kw)}{NBSP}kW), lowest "
        f"on {name(low.day_of_week, low.hour_of_day)} ({formats.figure(low.avg_power_kw)}{NBSP}kW)."
    )


def scatter(data: ReportData, *, threshold: float) -> str:
    """What the cloud shows, and which readings it leaves out."""
    scores = data.scores
    assert scores is not None
    shown = len(scores.top)
    which = (
        f"all {formats.count(shown)}"
        if shown == scores.anomalies
        else f"the {formats.count(shown)} strangest of {formats.count(scores.anomalies)}"
    )
    rest = scores.readings - scores.anomalies
    sample = len(scores.others)
    others = (
        f"all {formats.plural(rest, 'other reading')}"
        if sample == rest
        else f"a fixed sample of {formats.count(sample)} of {formats.count(rest)} other readings"
    )
    text = f"Above the line of {threshold:.3g} a reading counts as an anomaly. Shown: "
    text += (
        f"{which} {'anomaly' if scores.anomalies == 1 else 'anomalies'} and {others}."
        if shown
        else f"{others}; no anomaly."
    )
    return text


def meters(data: ReportData) -> str:
    """How concentrated the anomalies are."""
    scores = data.scores
    assert scores is not None
    share = formats.share(scores.anomalies / scores.readings)
    first = scores.meters[0]
    text = (
        f"{formats.count(scores.meters_with_anomalies)} of {formats.plural(scores.meters_scored, 'meter')} "
        f"had an anomaly. Highest share: {first.meter_id}, {formats.share(first.share)} of its readings, against "
        f"{share} in the whole fleet (dashed line)."
    )
    left_out = scores.meters_scored - scores.meters_ranked
    if left_out:
        text += f" {formats.plural(left_out, 'meter')} with fewer than {scores.min_meter_readings} readings not ranked."
    return text


def kinds(data: ReportData) -> str:
    """How many anomalies there are of each type."""
    if not data.scores or not data.scores.anomalies:
        return ""
    parts = [f"{formats.count(number)} {formats.words(kind)}" for kind, number in data.scores.anomalies_by_type.items()]
    return f"All {formats.plural(data.scores.anomalies, 'anomaly', 'anomalies')} by type: {', '.join(parts)}."
