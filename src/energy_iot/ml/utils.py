"""Reading the feature table: what it holds, a sample of it, and all of it in batches. Arrow all the way."""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from energy_iot.errors import ModelError
from energy_iot.ml.config import FEATURE_TABLE
from energy_iot.ml.features import FEATURES, INPUT_COLUMNS, Feature, features_query, habits_query
from energy_iot.storage.postgres import Postgres

HABITS_TABLE: Final = "meter_habits"  # temporary: of one connection


@dataclass(frozen=True)
class Survey:
    """What the feature table holds.

    Attributes:
        readings: Its rows.
        meters: How many different ones.
        known: For each feature, how many readings have a value.
    """

    readings: int
    meters: int
    known: Mapping[str, int]

    @property
    def features_with_values(self) -> list[str]:
        """Names of the features that some reading has a value for."""
        return [name for name, count in self.known.items() if count]


@dataclass(frozen=True)
class Sample:
    """Readings to train on.

    Attributes:
        table: All features, one row a reading.
        meters: Of how many meters.
        first: Earliest instant, UTC.
        last: Latest instant, UTC.
    """

    table: pa.Table
    meters: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class FeatureReader:
    """The feature table, its meters' habits worked out once; `survey` says what it holds."""

    survey: Survey
    _connection: Any

    def sample(self, readings: int, *, seed: int) -> Sample:
        """Draw at most `readings`, the same ones in the same order each time.

        Chosen and ordered by a hash of meter, instant and seed: independent of ids and of the order on disk.
        PostgreSQL keeps these hash functions as they are from version to version, since partitioned tables on disk
        depend on them.
        """
        epoch = "cast(extract(epoch from reading_timestamp) as bigint)"
        hashed = f"hashint8extended({epoch}, hashtextextended(meter_id, {seed}))"
        bound = min(2**63 - 1, -(2**63) + 2**64 * readings // self.survey.readings)  # this share of hashes lies below
        query = features_query(
            FEATURES,
            HABITS_TABLE,
            also=("meter_id", "reading_timestamp"),
            rest=f"where {hashed} <= {bound} order by {hashed}, meter_id, reading_timestamp limit {readings}",
        )
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            table = cursor.fetch_arrow_table()
        instants = pc.min_max(table["reading_timestamp"])
        return Sample(
            table=table,
            meters=pc.count_distinct(table["meter_id"]).as_py(),
            first=instants["min"].as_py(),
            last=instants["max"].as_py(),
        )

    def stream(self, features: Sequence[Feature], *, batch_readings: int) -> Generator[pa.RecordBatch, None, None]:
        """All readings as Arrow batches of `reading_id` and `features`, at most `batch_readings` each.

        They are one consistent snapshot, and only a few batches are ever in memory.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(features_query(features, HABITS_TABLE))
            for received in cursor.fetch_record_batch():
                for start in range(0, received.num_rows, batch_readings):
                    yield received.slice(start, batch_readings)


@contextmanager
def open_features(postgres: Postgres) -> Iterator[FeatureReader]:
    """The feature table, ready to be read while the block runs.

    Raises:
        ModelError: The table, or a column of it that features need, is not there; it is empty; or a column holds
            values that are no numbers.
    """
    _check_columns(postgres)
    with postgres.connect_arrow() as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"create temp table {HABITS_TABLE} as {habits_query()}")
            cursor.execute(f"analyze {HABITS_TABLE}")
            survey = _survey(cursor)
        yield FeatureReader(survey, connection)


def _check_columns(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        found = {
            name
            for (name,) in connection.execute(
                "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
                (FEATURE_TABLE,),
            )
        }
    missing = [name for name in INPUT_COLUMNS if name not in found]
    if missing:
        raise ModelError(
            f"{FEATURE_TABLE} has no column {', '.join(missing)}" if found else f"there is no table {FEATURE_TABLE}",
            fix="run `energy-iot transform staging`, then `energy-iot transform intermediate`",
        )


def _survey(cursor: Any) -> Survey:
    wanted = ["readings", *(f"{feature.name}_known" for feature in FEATURES)]
    counts = ", ".join(f"cast(coalesce(sum({name}), 0) as bigint) as {name}" for name in wanted)
    sums = ", ".join(f"sum({name}_sum) as {name}" for name in INPUT_COLUMNS)
    cursor.execute(f"select count(*) as meters, {counts}, {sums} from {HABITS_TABLE}")
    (found,) = cursor.fetch_arrow_table().to_pylist()
    if not found["readings"]:
        raise ModelError(
            f"{FEATURE_TABLE} holds no readings: there is nothing to score",
            fix="load a file with consumption (`energy-iot ingest FILE`), then run `energy-iot transform staging` "
            "and `energy-iot transform intermediate`",
        )
    # one such value makes a whole sum so, and a forest would take it without a word
    broken = [name for name in INPUT_COLUMNS if found[name] is not None and not math.isfinite(found[name])]
    if broken:
        raise ModelError(
            f"{FEATURE_TABLE} holds NaN or infinity in {', '.join(broken)}",
            fix="remove such readings at the source; `energy-iot validate staging` shows where they are",
        )
    known = {feature.name: found[f"{feature.name}_known"] for feature in FEATURES}
    return Survey(found["readings"], found["meters"], known)
