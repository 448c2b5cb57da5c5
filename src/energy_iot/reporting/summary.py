"""Tables for the terminal: a run's steps, what the stores hold, the settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from energy_iot.ingestion.reject_list import RejectList
    from energy_iot.ml.evaluation.summary import Figure
    from energy_iot.ml.inspections import Inspection
    from energy_iot.reporting.findings import Findings, NodeLoss

SHOWN_REASONS = 2

STATUS_STYLES = {
    "succeeded": "green",
    "skipped": "dim",
    "failed": "bold red",
    "running": "yellow",
    "interrupted": "yellow",
}


def make_console() -> Console:
    """Standard output; in a pipe lines keep the width that the tables need."""
    console = Console()
    if not console.is_terminal:
        console.width = 160
    return console


def steps_table(steps: Iterable[Mapping[str, Any]], *, title: str) -> RenderableType:
    """Steps as rows of `read_steps`, then their warnings in full."""
    steps = list(steps)
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for heading in ("step", "status", "built"):
        table.add_column(heading)
    for heading in ("rows in", "rows out", "seconds", "rows/s"):
        table.add_column(heading, justify="right")
    for step in steps:
        seconds, rows = step["seconds"], max(step["rows_in"] or 0, step["rows_out"] or 0)
        worked = step["status"] == "succeeded" and seconds and rows
        table.add_row(
            step["name"],
            Text(step["status"], style=STATUS_STYLES.get(step["status"], "")),
            step["mode"] or "",
            _count(step["rows_in"]),
            _count(step["rows_out"]),
            "" if seconds is None else f"{seconds:.1f}",
            f"{rows / seconds:,.0f}" if worked else "",
        )
    warnings = [(step["name"], warning) for step in steps for warning in step["warnings"] or ()]
    lines = [Text.assemble(("warning ", "yellow"), (f"{name}: ", "bold"), warning) for name, warning in warnings]
    return Group(table, *lines)


def rows_table(rows: Mapping[str, Any]) -> RenderableType:
    """What the stores hold, as in `read_status`; counts that are not there are left out."""
    table = Table(title="What the stores hold", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("store")
    table.add_column("rows", justify="right")
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
    from energy_iot.ml.rank import to_table

    tables: list[RenderableType] = []
    if findings.losses:
        tables.append(_losses_table(findings.losses))
    if findings.suspects:
        tables.append(to_table(findings.suspects, total=findings.meters_ranked, most_reasons=SHOWN_REASONS))
        tables.append(Text(f"all: {command} rank; why: {command} explain METER"))
    return Group(*tables)


def _losses_table(losses: Sequence["NodeLoss"]) -> Table:
    first, last = min(node.first_month for node in losses), max(node.last_month for node in losses)
    table = Table(
        title=f"Transformers by the energy that nobody accounts for, {first:%Y-%m} to {last:%Y-%m}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("transformer")
    for heading in ("energy in, kWh", "metered", "technical loss", "unexplained", "share", "value"):
        table.add_column(heading, justify="right")
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
    return table


def runs_table(runs: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The last runs, newest first, as in `read_runs`."""
    table = Table(title="Last runs", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for heading in ("run", "started (UTC)", "status"):
        table.add_column(heading)
    for heading in ("seconds", "program", "model"):
        table.add_column(heading, justify="right")
    table.add_column("error", overflow="ellipsis", no_wrap=True, max_width=70)
    for run in runs:
        table.add_row(
            run["id"],
            run["started"],
            Text(run["status"], style=STATUS_STYLES.get(run["status"], "")),
            "" if run["seconds"] is None else f"{run['seconds']:.1f}",
            run["package_version"],
            "" if run["model_version"] is None else f"v{run['model_version']}",
            Text((run["error"] or "").splitlines()[0] if run["error"] else ""),
        )
    return table


def rejects_tables(found: "RejectList") -> RenderableType:
    """Rejects by file and reason, then the first lines; their texts cannot steer a terminal."""
    from energy_iot.ingestion.readers.batch import printable

    if not found.files:
        return Text("no rejected lines")
    files = Table(title="Rejected lines by file", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for heading in ("file", "SHA-256", "loaded (UTC)", "by run"):
        files.add_column(heading)
    for heading in ("open", "resolved"):
        files.add_column(heading, justify="right")
    files.add_column("most common reasons", overflow="fold")
    for file in found.files:
        files.add_row(
            Text(file.file),
            file.sha256[:8],
            f"{file.loaded_at:%Y-%m-%d %H:%M}",
            file.run_id,
            _count(file.open),
            _count(file.resolved),
            Text("\n".join(f"{reason.count:,} x {printable(reason.reason)}" for reason in file.reasons)),
        )
    lines = Table(title="The first of them", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    lines.add_column("id", justify="right")
    lines.add_column("file")
    lines.add_column("line", justify="right")
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
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for heading in ("inspected", "meter", "theft", "kind"):
        table.add_column(heading, overflow="fold")
    table.add_column("recovered kWh", justify="right")
    for one in inspections:
        found = Text("found", style="bold red") if one.found_theft else Text("none")
        recovered = "" if one.recovered_kwh is None else f"{one.recovered_kwh:,.0f}"
        table.add_row(str(one.inspected_on), Text(one.meter_id), found, Text(one.kind or ""), recovered)
    return table


def evaluation_table(rankings: "Mapping[str, Mapping[str, Figure]]") -> RenderableType:
    """Figures of each ranking, mean over fleets; `Summary.rankings`."""
    table = Table(title="Mean over fleets", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("ranking")
    for name in next(iter(rankings.values())):
        table.add_column(name.replace("_", " "), justify="right")
    for ranking, figures in rankings.items():
        table.add_row(ranking, *("" if one.value is None else f"{one.value:.3f}" for one in figures.values()))
    return table
