"""What the dashboards ask, asked without Grafana: of the Prometheus and PostgreSQL that they would ask."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
from psycopg.rows import dict_row

FOLDER: Final = Path(__file__).parent / "dashboards"
MOST_POINTS: Final = 500


@dataclass(frozen=True)
class Question:
    """One query of one panel of a dashboard."""

    dashboard: str
    panel: Mapping[str, Any]
    target: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel['title']} {self.target['refId']}"


@dataclass(frozen=True)
class Sources:
    """Where the answers come from.

    Attributes:
        prometheus: Address of Prometheus.
        database: How PostgreSQL is reached.
        interval_seconds: Between two scrapes; rates look back four of them.
    """

    prometheus: str
    database: str
    interval_seconds: int

    def ask(self, question: Question, *, start: float, end: float) -> list[dict[str, Any]]:
        """Series of Prometheus (metric, values) or rows of PostgreSQL (by column) between two Unix times, s."""
        if "expr" not in question.target:
            return self._rows(question.target["rawSql"], start, end)
        parameters = {
            "query": question.target["expr"].replace("$__rate_interval", f"{4 * self.interval_seconds}s"),
            "start": start,
            "end": end,
            "step": max(self.interval_seconds, (end - start) / MOST_POINTS),
        }
        answer = httpx.get(f"{self.prometheus}/api/v1/query_range", params=parameters, timeout=30).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def _rows(self, sql: str, start: float, end: float) -> list[dict[str, Any]]:
        between = r"\1 between " + " and ".join(f"(to_timestamp({at}) at time zone 'utc')" for at in (start, end))
        sql = re.sub(r"\$__timeFilter\((\w+)\)", between, sql)
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()


def read_dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards' files, by their names."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}


def questions() -> list[Question]:
    """All queries of all panels."""
    return [
        Question(name, panel, target)
        for name, dashboard in read_dashboards().items()
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
