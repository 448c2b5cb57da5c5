"""What is known of one meter: against its own past, its peers and its transformer."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import psycopg
from psycopg.rows import class_row, dict_row

from energy_iot.errors import UsageError
from energy_iot.ml.config import METER_FEATURES_TABLE
from energy_iot.ml.rank import COLUMNS, LIST_TABLE, Suspect, describe_loss, ensure_list, explanations
from energy_iot.storage.postgres import Postgres

LEVELS_TABLE: Final = "intermediate.int_meter_levels"
BALANCE_TABLE: Final = "intermediate.int_energy_balance"
BLOCKS: Final = 8
SIMILAR_NAMES: Final = 3


@dataclass(frozen=True)
class MeterDay:
    """One day of a meter.

    Attributes:
        day: UTC.
        registered_kwh: Energy of 24 hours with supply, kWh.
        peer_index: What the peers used over their mean.
        shares: Share of the day's energy in each of the eight blocks of three hours; None where nothing was used.
    """

    day: date
    registered_kwh: float
    peer_index: float | None
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class NodeDay:
    """One day of the meter's transformer: energy that neither meters nor losses explain, kWh, and its share."""

    day: date
    unexplained_kwh: float
    unexplained_share: float | None


@dataclass(frozen=True)
class Explanation:
    """All that `energy-iot explain` shows.

    Attributes:
        suspect: Its row of the list.
        total: Meters on the list.
        features: Its row of intermediate.int_meter_features.
        days: Its days, in order; empty where none could be compared.
        peer_shares: Mean shares of its peers' blocks; None where it has no peers.
        node_days: Of its transformer, in order; empty without a registry.
    """

    suspect: Suspect
    total: int
    features: Mapping[str, Any]
    days: tuple[MeterDay, ...]
    peer_shares: tuple[float, ...] | None
    node_days: tuple[NodeDay, ...]

    @property
    def change_date(self) -> date | None:
        """The day that before and since are told apart by."""
        known: date | None = self.suspect.suspected_since or self.features["drop_date"]
        return known

    def expected_kwh(self) -> list[float | None]:
        """What each day would have come to by the past before the change and the peers' index, kWh."""
        before = [
            (one.registered_kwh, one.peer_index)
            for one in self.days
            if one.peer_index and (self.change_date is None or one.day < self.change_date)
        ]
        index = sum(peer_index for _, peer_index in before)
        level = sum(registered for registered, _ in before) / index if index else None
        return [None if level is None or one.peer_index is None else level * one.peer_index for one in self.days]

    def mean_shares(self, *, since: bool) -> tuple[float, ...] | None:
        """Mean profile of the day before the change or since it, eight shares; None where no day tells."""
        found = [
            one.shares
            for one in self.days
            if one.shares is not None and (self.change_date is None or (one.day >= self.change_date) == since)
        ]
        if not found or (since and self.change_date is None):
            return None
        return tuple(sum(shares) / len(found) for shares in zip(*found, strict=True))


def read_explanation(postgres: Postgres, meter_id: str) -> Explanation:
    """What is known of a meter on the list.

    Raises:
        UsageError: There is no list, or it does not hold the meter.
    """
    with postgres.connect() as connection:
        ensure_list(connection)
        suspect = _read_suspect(connection, meter_id)
        features = _one(connection, f"select * from {METER_FEATURES_TABLE} where meter_id = %s", meter_id)
        total = _one(connection, f"select count(*) as meters from {LIST_TABLE} where meter_id <> %s", "")["meters"]
        shares = ", ".join(f"share_{block}" for block in range(1, BLOCKS + 1))
        days = connection.execute(
            f"select reading_date, supplied_day_kwh, peer_index, {shares} from {LEVELS_TABLE} "
            "where meter_id = %s order by reading_date".encode(),
            (meter_id,),
        ).fetchall()
        means = ", ".join(f"avg(share_{block})" for block in range(1, BLOCKS + 1))
        peers = connection.execute(
            f"select {means} from {LEVELS_TABLE} where peer_group = %s".encode(), (features["peer_group"],)
        ).fetchone()
        nodes = connection.execute(
            f"select reading_date, unexplained_kwh, unexplained_share from {BALANCE_TABLE} "
            "where node_id = %s and node_type = 'transformer' and unexplained_kwh is not null "
            "and reading_date between %s and %s order by reading_date".encode(),
            (suspect.transformer_id, days[0][0], days[-1][0]) if days else (None, None, None),
        ).fetchall()
    return Explanation(
        suspect,
        total,
        features,
        tuple(MeterDay(row[0], row[1], row[2], _known(row[3:])) for row in days),
        _known(peers or ()),
        tuple(NodeDay(*row) for row in nodes),
    )


def _known(values: tuple[Any, ...]) -> tuple[float, ...] | None:
    return None if not values or any(value is None for value in values) else tuple(map(float, values))


def _one(connection: psycopg.Connection, query: str, value: str) -> dict[str, Any]:
    row = connection.cursor(row_factory=dict_row).execute(query.encode(), (value,)).fetchone()
    assert row is not None
    return row


def _read_suspect(connection: psycopg.Connection, meter_id: str) -> Suspect:
    cursor = connection.cursor(row_factory=class_row(Suspect))
    cursor.execute(f"select {', '.join(COLUMNS)} from {LIST_TABLE} where meter_id = %s".encode(), (meter_id,))
    if (suspect := cursor.fetchone()) is not None:
        return suspect
    known = [row[0] for row in connection.execute(f"select meter_id from {LIST_TABLE}".encode())]
    similar = difflib.get_close_matches(meter_id, known, n=SIMILAR_NAMES) or sorted(known)[:SIMILAR_NAMES]
    raise UsageError(
        f"no meter {meter_id} on the inspection list of {len(known):,} meters",
        fix=f"meters that are on it: {', '.join(similar)}; `energy-iot rank` shows the most suspicious",
    )


def to_text(explanation: Explanation) -> str:
    """The explanation for a terminal."""
    suspect, features = explanation.suspect, explanation.features
    lines = [
        f"meter {suspect.meter_id}: rank {suspect.suspicion_rank:,} of {explanation.total:,}, suspicion score "
        f"{suspect.suspicion_score:.2f}, confidence {suspect.confidence:.2f} (as of {suspect.as_of_date})",
        _describe_place(suspect, features),
        "",
        "why:",
        *(f"  - {reason}" for reason in explanations(suspect)),
        "",
        "its own past:",
        *(f"  {line}" for line in _own_past(features)),
        f"its peers ({features['peer_group'] or 'none'}):",
        *(f"  {line}" for line in _peers(features)),
        "its transformer:",
        *(f"  {line}" for line in _transformer(suspect, features)),
    ]
    if suspect.lost_kwh is not None:
        loss = describe_loss(suspect).replace("\n", ", ")
        lines += ["", f"missing since {suspect.suspected_since}: {loss}"]
    return "\n".join(lines)


def _describe_place(suspect: Suspect, features: Mapping[str, Any]) -> str:
    parts = [
        suspect.customer_class,
        f"contracted {features['contracted_power_kw']:g} kW" if features["contracted_power_kw"] else None,
        {True: "prepaid", False: "postpaid", None: None}[features["is_prepaid"]],
        f"service point {features['service_point_id']}" if features["service_point_id"] else None,
        f"transformer {suspect.transformer_id}" if suspect.transformer_id else None,
        f"{features['day_count']} days compared",
    ]
    return ", ".join(part for part in parts if part)


def _own_past(features: Mapping[str, Any]) -> list[str]:
    if features["supplied_day_kwh_recent"] is None or features["supplied_day_kwh_past"] is None:
        return ["too little data to compare with"]
    lines = [
        f"{features['supplied_day_kwh_recent']:.2f} kWh a day in the last four weeks, "
        f"{features['supplied_day_kwh_past']:.2f} before"
    ]
    if features["drop_share"] is not None and features["drop_date"] is not None:
        lines.append(
            f"strongest fall on {features['drop_date']}: {features['drop_share']:.0%} against its peers, "
            f"{features['drop_t']:.1f} standard errors"
        )
    if features["profile_distance"] is not None and features["shape_date"] is not None:
        lines.append(
            f"strongest change of the day's shape on {features['shape_date']}: {features['profile_distance']:.0%} of "
            "the energy moved to other hours"
        )
    return lines


def _peers(features: Mapping[str, Any]) -> list[str]:
    if features["peer_change_recent"] is None or features["peer_distance_recent"] is None:
        return ["too little data to compare with"]
    return [
        f"used {features['peer_change_recent']:+.0%} in the last four weeks against those before",
        f"{features['peer_distance_recent']:.0%} of its energy lies at other hours than theirs, before "
        f"{features['peer_distance_past']:.0%}",
    ]


def _transformer(suspect: Suspect, features: Mapping[str, Any]) -> list[str]:
    if suspect.transformer_unexplained_share is None:
        return ["no balance known (it takes the registry and readings of the network)"]
    lines = [
        f"{suspect.transformer_unexplained_share:.1%} of its energy is unexplained in the last four weeks",
    ]
    if features["unexplained_rise_kwh"] is not None and features["unexplained_rise_t"] is not None:
        lines.append(
            f"{features['unexplained_rise_kwh']:+.1f} kWh a day since {features['drop_date']} "
            f"({features['unexplained_rise_t']:.1f} standard errors)"
        )
    return lines
