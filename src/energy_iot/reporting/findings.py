"""What was found in the fleet, for page and terminal: the meters to inspect first, and where energy is lost."""

from dataclasses import dataclass
from datetime import date
from typing import Final

import psycopg
from psycopg.rows import class_row

from energy_iot.ml.rank import Suspect, count_ranked, read_suspects

LOSSES_TABLE: Final = "marts.mart_losses"
LOSS_MONTHS: Final = 3
TOP_SUSPECTS: Final = 10
TOP_NODES: Final = 10


@dataclass(frozen=True)
class NodeLoss:
    """Where a node's energy of the last months went; energies kWh, the value at the tariff of the customers below."""

    node_id: str
    node_type: str
    first_month: date
    last_month: date
    energy_in_kwh: float
    energy_metered_kwh: float
    technical_loss_kwh: float
    unexplained_kwh: float
    unexplained_value: float | None
    currency: str | None

    @property
    def unexplained_share(self) -> float:
        """Unexplained energy over energy in."""
        return self.unexplained_kwh / self.energy_in_kwh if self.energy_in_kwh else 0.0


@dataclass(frozen=True)
class Findings:
    """The head of the inspection list, how many meters are on it, and the transformers that lose most."""

    suspects: tuple[Suspect, ...] = ()
    meters_ranked: int = 0
    losses: tuple[NodeLoss, ...] = ()


def read_findings(
    connection: psycopg.Connection, *, top_suspects: int = TOP_SUSPECTS, top_nodes: int = TOP_NODES
) -> Findings:
    """Read the heads of both lists; empty before their tables are there.

    Suspects are the meters with a reason to suspect them; the list ranks all others behind.
    """
    ranked = count_ranked(connection) or 0
    suspects = read_suspects(connection, top=top_suspects) if ranked else []
    return Findings(
        suspects=tuple(suspect for suspect in suspects if suspect.reasons),
        meters_ranked=ranked,
        losses=_read_losses(connection, top_nodes),
    )


def _read_losses(connection: psycopg.Connection, top: int) -> tuple[NodeLoss, ...]:
    """Transformers by the energy that nobody accounts for, over the last months."""
    found = connection.execute("select to_regclass(%s) is not null", (LOSSES_TABLE,)).fetchone()
    if found != (True,):
        return ()
    with connection.cursor(row_factory=class_row(NodeLoss)) as cursor:
        cursor.execute(
            "select node_id, node_type, min(month_start) as first_month, max(month_start) as last_month, "
            "sum(energy_in_kwh)::float8 as energy_in_kwh, sum(energy_metered_kwh)::float8 as energy_metered_kwh, "
            "sum(technical_loss_kwh)::float8 as technical_loss_kwh, sum(unexplained_kwh)::float8 as unexplained_kwh, "
            "sum(unexplained_value)::float8 as unexplained_value, max(currency) as currency "
            f"from {LOSSES_TABLE} where node_type = 'transformer' and month_start > "
            f"(select max(month_start) from {LOSSES_TABLE}) - make_interval(months => %s) "
            "group by node_id, node_type order by unexplained_kwh desc, node_id limit %s".encode(),
            (LOSS_MONTHS, top),
        )
        return tuple(cursor)
