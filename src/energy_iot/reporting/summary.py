"""Tables for the terminal: a run's steps, what the stores hold, the settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from energy_iot.reporting.terminal import FirstThatFits, WrappedLines, lines_of, make_table

if TYPE_CHECKING:
    from energy_iot.ingestion.reject_list import RejectList
    from energy_iot.ml.evaluation.summary import Figure
    from energy_iot.ml.inspections import Inspection
    from energy_iot.ml.rank import Suspect
    from energy_iot.reporting.findings import Findings, NodeLoss

SHOWN_REASONS = 2

STATUS_STYLES = {
    "succeeded": "green",
    "skipped": "dim",
    "failed": "bold red",
    "running": "yellow",
    "interrupted": "yellow",
}


def steps_table(steps: Iterable[Mapping[str, Any]], *, title: str) -> RenderableType:
    """Steps as rows of `read_steps`, then their warnings in full."""
    steps = list(steps)
    warnings = [(step["name"], warning) for step in steps for warning in step["warnings"] or ()]
    lines = [Text.assemble(("warning ", "yellow"), (f"{name}: ", "bold"), warning) for name, warning in warnings]
    return Group(FirstThatFits((_steps(steps, title), _steps(steps, title, with_speed=False))), *lines)


def _steps(steps: Sequence[Mapping[str, Any]], title: str, *, with_speed: bool = True) -> Table:
    figures = ("rows in", "rows out", "seconds", *(("rows/s",) if with_speed else ()))
    table = make_table(title, "step", "status", "built", *figures, right=figures)
    for step in steps:
        seconds, rows = step["seconds"], max(step["rows_in"] or 0, step["rows_out"] or 0)
        worked = step["status"] == "succeeded" and seconds and rows
        cells = (
            step["name"],
            Text(step["status"], style=STATUS_STYLES.get(step["status"], "")),
            step["mode"] or "",
            _count(step["rows_in"]),
            _count(step["rows_out"]),
            "" if seconds is None else f"{seconds:.1f}",
        )
        table.add_row(*cells, *((f"{rows / seconds:,.0f}" if worked else "",) if with_speed else ()))
    return table


def rows_table(rows: Mapping[str, Any]) -> RenderableType:
    """What the stores hold, as in `read_status`; counts that are not there are left out."""
    table = make_table("What the stores hold", "store", "rows", right=["rows"])
    labels = {
        "raw": "readings, raw",
        "rejected": "rows rejected",
        "staging": "readings, clean",
        "scores": "readings scored",
        "anomalies": "anomalies",
    }
    for key, label in labels.items():
        if key in rows:
            table.add_row(f"PostgreSQL: {label}", _count(rows[key]))
    for name, count in (rows["clickhouse"] or {}).items():
        table.add_row(f"ClickHouse: {name}", _count(count))
    if rows["clickhouse"] is None:
        table.add_row("ClickHouse", "in use by another process")
    return table


def findings_tables(findings: "Findings", *, command: str) -> RenderableType:
    """Where energy is lost, and whom to inspect first; nothing of what is not known.

    Args:
        findings: What was found.
        command: What to type before the names of commands that show more.
    """
    tables: list[RenderableType] = []
    if findings.losses:
        tables.append(_losses_table(findings.losses))
    if findings.suspects:
        tables.append(suspects_table(findings.suspects, total=findings.meters_ranked, most_reasons=SHOWN_REASONS))
        tables.append(Text(f"all: {command} rank\nwhy: {command} explain METER"))
    return Group(*tables)


def suspects_table(suspects: Sequence["Suspect"], *, total: int, most_reasons: int | None = None) -> RenderableType:
    """The inspection list; all reasons of each meter, or the first."""
    from energy_iot.ml.rank import describe_loss, explanations, shortened

    title = f"{len(suspects):,} of {total:,} meters, the most suspicious first; as of {suspects[0].as_of_date}"
    headings = ("rank", "meter", "score", "confidence", "since", "lost", "transformer", "why")
    table = make_table(title, *headings, right=("rank", "score", "confidence", "lost"), wrapping=["why"])
    for suspect in suspects:
        cells = (
            f"{suspect.suspicion_rank:,}",
            suspect.meter_id,
            f"{suspect.suspicion_score:.2f}",
            f"{suspect.confidence:.2f}",
            str(suspect.suspected_since or ""),
            describe_loss(suspect),
            suspect.transformer_id or "",
            "\n".join(f"- {reason}" for reason in shortened(explanations(suspect), most_reasons)),
        )
        table.add_row(*map(Text, cells))
    return FirstThatFits((table, lines_of(table)))


def _losses_table(losses: Sequence["NodeLoss"]) -> RenderableType:
    first, last = min(node.first_month for node in losses), max(node.last_month for node in losses)
    figures = ("energy in\n(kWh)", "metered", "technical\nloss", "unexplained", "share", "value")
    title = f"Transformers by the energy that nobody accounts for, {first:%Y-%m} to {last:%Y-%m}"
    table = make_table(title, "transformer", *figures, right=figures)
    for node in losses:
        table.add_row(
            Text(node.node_id),
            *(
                f"{kwh:,.0f}"
                for kwh in (
                    node.energy_in_kwh,
                    node.energy_metered_kwh,
                    node.technical_loss_kwh,
                    node.unexplained_kwh,
                )
            ),
            f"{node.unexplained_share:.1%}",
            "" if node.unexplained_value is None else f"{node.unexplained_value:,.0f} {node.currency or ''}".strip(),
        )
    return FirstThatFits((table, lines_of(table)))


def runs_table(runs: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The last runs, newest first, as in `read_runs`."""
    headings, figures = ("run", "started (UTC)", "status"), ("seconds", "program", "model")
    wide = make_table("Last runs", *headings, *figures, right=figures)
    wide.add_column("error", overflow="ellipsis", no_wrap=True, min_width=20, max_width=70)
    narrow = make_table("Last runs", *headings, "seconds", right=figures)
    errors = []
    for run in runs:
        status = Text(run["status"], style=STATUS_STYLES.get(run["status"], ""))
        seconds = "" if run["seconds"] is None else f"{run['seconds']:.1f}"
        model = "" if run["model_version"] is None else f"v{run['model_version']}"
        error = run["error"].splitlines()[0] if run["error"] else ""
        wide.add_row(run["id"], run["started"], status, seconds, run["package_version"], model, Text(error))
        narrow.add_row(run["id"], run["started"], status, seconds)
        if error:
            errors.append(f"{run['id']}: {error}")
    return FirstThatFits((wide, Group(narrow, WrappedLines(tuple(errors)))))


def rejects_tables(found: "RejectList") -> RenderableType:
    """Rejects by file and reason, then the first lines; their texts cannot steer a terminal."""
    from energy_iot.ingestion.readers.batch import printable

    if not found.files:
        return Text("no rejected lines")
    title, figures = "Rejected lines by file", ("open", "resolved")
    wide = make_table(
        title, "file", "SHA-256", "loaded (UTC)", "by run", *figures, "most common reasons", right=figures
    )
    narrow = make_table(title, "file", "loaded (UTC)", *figures, "most common reasons", right=figures)
    for file in found.files:
        name, loaded = Text(file.file), f"{file.loaded_at:%Y-%m-%d %H:%M}"
        counts = (_count(file.open), _count(file.resolved))
        reasons = Text("\n".join(f"{reason.count:,} x {printable(reason.reason)}" for reason in file.reasons))
        wide.add_row(name, file.sha256[:8], loaded, file.run_id, *counts, reasons)
        narrow.add_row(name, loaded, *counts, reasons)
    files = FirstThatFits((wide, narrow, lines_of(wide)))
    lines = make_table("The first of them", "id", "file", "line", right=("id", "line"))
    for heading in ("reason", "text"):
        lines.add_column(heading, overflow="ellipsis", max_width=60)
    for line in found.lines:
        lines.add_row(
            str(line.reject_id),
            Text(line.file),
            str(line.line_number),
            Text(printable(line.reason if line.resolved_by is None else f"resolved by {line.resolved_by}")),
            Text(printable(line.raw_text.strip())),
        )
    return Group(files, lines) if found.lines else files


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def inspections_table(inspections: "Iterable[Inspection]", *, title: str) -> RenderableType:
    """Outcomes of inspections, as they come."""
    figure = "recovered kWh"
    table = make_table(title, "inspected", "meter", "theft", "kind", figure, right=[figure])
    for one in inspections:
        found = Text("found", style="bold red") if one.found_theft else Text("none")
        recovered = "" if one.recovered_kwh is None else f"{one.recovered_kwh:,.0f}"
        table.add_row(str(one.inspected_on), Text(one.meter_id), found, Text(one.kind or ""), recovered)
    return table


def evaluation_table(rankings: "Mapping[str, Mapping[str, Figure]]") -> RenderableType:
    """Figures of each ranking, mean over fleets; `Summary.rankings`."""
    names = [name.replace("_", "\n") for name in next(iter(rankings.values()))]
    table = make_table("Mean over fleets", "ranking", *names, right=names)
    for ranking, figures in rankings.items():
        table.add_row(ranking, *("" if one.value is None else f"{one.value:.3f}" for one in figures.values()))
    return FirstThatFits((table, lines_of(table)))


def settings_table(settings: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Settings: name, value, where it came from, meaning."""
    table = make_table(None, "setting", "value", "from", "meaning", wrapping=["meaning"])
    for setting in settings:
        table.add_row(*(Text(str(setting[name])) for name in ("setting", "value", "origin", "description")))
    return FirstThatFits((table, lines_of(table)))
