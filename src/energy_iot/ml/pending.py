"""What a scoring has to do: what the scores have yet to follow, and which days a person asks for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import psycopg

from energy_iot.errors import UsageError
from energy_iot.ml.config import (
    FEATURE_DAYS_TABLE,
    FEATURES_STATE,
    METER_FEATURES_STATE,
    METER_FEATURES_TABLE,
    RANKING_VERSION,
    SCORES_STATE,
    SUSPICIONS_STATE,
)
from energy_iot.ml.features import definitions
from energy_iot.ml.versions import Card, ModelVersion, score_threshold, version_in_force
from energy_iot.settings import Settings
from energy_iot.storage.changes import DerivedState, Pending, find_pending, fingerprint_of, read_state

RESCORE_ALL: Final = "all"
RESCORE_FIX: Final = (
    "write --rescore all, or days as --rescore 2026-10-01..2026-10-31 (2026-10-01.. is from a day on, ..2026-10-31 up "
    "to a day)"
)


@dataclass(frozen=True)
class DayRange:
    """Days, both ends included; None is no end."""

    first: date | None
    last: date | None

    def query(self) -> str:
        """SQL of these days of all meters, those with readings, as (meter_id, reading_date)."""
        ends = ((">=", self.first), ("<=", self.last))
        bounds = [f"reading_date {sign} date '{day.isoformat()}'" for sign, day in ends if day is not None]
        return f"select meter_id, reading_date from {FEATURE_DAYS_TABLE} where {' and '.join(bounds) or 'true'}"

    def __str__(self) -> str:
        return "..".join(day.isoformat() if day else "" for day in (self.first, self.last))


def parse_days(text: str) -> DayRange:
    """The days that `--rescore FIRST..LAST` means.

    Raises:
        UsageError: It means none.

    Example:
        >>> parse_days("2026-10-01..")
        DayRange(first=datetime.date(2026, 10, 1), last=None)
    """
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)?\.\.(\d{4}-\d\d-\d\d)?", text)
    if found is None:
        raise UsageError(f"--rescore {text}: this is neither 'all' nor days", fix=RESCORE_FIX)
    try:
        first, last = (date.fromisoformat(day) if day else None for day in found.groups())
    except ValueError as error:
        raise UsageError(f"--rescore {text}: {error}", fix=RESCORE_FIX) from error
    if first and last and first > last:
        raise UsageError(f"--rescore {text}: ends before it begins", fix=f"write --rescore {last}..{first}")
    return DayRange(first, last)


@dataclass(frozen=True)
class PendingScores:
    """What the scores have yet to follow.

    Attributes:
        pending: The changes.
        features: How far the feature table is, where it has a state.
    """

    pending: Pending
    features: DerivedState | None

    def fingerprint(self, card: Card | None, settings: Settings) -> str:
        """Hash of all that scores follow from, readings aside; `card` is of the version in force."""
        return _fingerprint(self.features, card, settings)


def find_pending_scores(
    connection: psycopg.Connection, versions: Sequence[ModelVersion], settings: Settings, *, full_refresh: bool
) -> PendingScores:
    """Compare the state of the scores with that of the feature table: they follow no change before it does."""
    features, in_force = read_state(connection, FEATURES_STATE), version_in_force(versions)
    fingerprint = _fingerprint(features, in_force.card if in_force else None, settings)
    pending = find_pending(connection, SCORES_STATE, fingerprint, full_refresh=full_refresh)
    if features is not None:
        pending = replace(pending, until=max(min(pending.until, features.change_id), pending.since or 0))
    return PendingScores(pending, features)


def find_pending_suspicions(
    connection: psycopg.Connection, settings: Settings, *, full_refresh: bool
) -> tuple[Pending, str] | None:
    """What the suspicions have yet to follow, and their fingerprint; None where there are no features of meters."""
    row = connection.execute("select to_regclass(%s) is not null", (METER_FEATURES_TABLE,)).fetchone()
    features, scores = read_state(connection, METER_FEATURES_STATE), read_state(connection, SCORES_STATE)
    if row is None or not row[0] or features is None or scores is None:
        return None
    fingerprint = fingerprint_of(
        features.fingerprint,
        scores.fingerprint,
        settings.trees,
        settings.random_seed,
        settings.min_inspections,
        settings.min_inspected_thefts,
        RANKING_VERSION,
    )
    pending = find_pending(connection, SUSPICIONS_STATE, fingerprint, full_refresh=full_refresh)
    until = min(pending.until, features.change_id, scores.change_id)
    return replace(pending, until=max(until, pending.since or 0)), fingerprint


def _fingerprint(features: DerivedState | None, card: Card | None, settings: Settings) -> str:
    model = (card["model_version"], card["sha256"], score_threshold(card, settings)) if card else None
    return fingerprint_of(features.fingerprint if features else None, model, settings.history_days, definitions())
