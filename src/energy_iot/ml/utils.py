"""Reading the feature table: a sample of it, and all of it, or some days, in batches. Arrow all the way."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from energy_iot.errors import ModelError
from energy_iot.ml.config import FEATURE_TABLE
from energy_iot.ml.feature_days import HABITS_TABLE
from energy_iot.ml.features import FEATURES, INPUT_COLUMNS, Feature, features_query
from energy_iot.storage.postgres import Postgres


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


def draw_sample(cursor: Any, readings: int, *, population: int, seed: int) -> Sample:
    """Draw at most `readings` out of `population`, the same ones in the same order each time.

    Chosen and ordered by a hash of meter, instant and seed: independent of ids and of the order on disk. PostgreSQL
    keeps these hash functions as they are from version to version, since partitioned tables on disk depend on them.
    """
    epoch = "cast(date_part('epoch', reading_timestamp) as bigint)"
    hashed = f"hashint8extended({epoch}, hashtextextended(meter_id, {seed}))"
    bound = min(2**63 - 1, -(2**63) + 2**64 * readings // population)  # this share of hashes lies below
    cursor.execute(
        features_query(
            FEATURES,
            HABITS_TABLE,
            rest=f"where {hashed} <= {bound} order by {hashed}, meter_id, reading_timestamp limit {readings}",
        )
    )
    table = cursor.fetch_arrow_table()
    instants = pc.min_max(table["reading_timestamp"])
    return Sample(
        table=table,
        meters=pc.count_distinct(table["meter_id"]).as_py(),
        first=instants["min"].as_py(),
        last=instants["max"].as_py(),
    )


def stream_features(
    connection: Any, features: Sequence[Feature], *, batch_readings: int, days_table: str | None = None
) -> Generator[pa.RecordBatch, None, None]:
    """All readings, or those of the days in `days_table`, as Arrow batches of at most `batch_readings`.

    Columns reading_id, meter_id, reading_timestamp and `features`. They are one consistent snapshot, only a few batches
    are ever in memory, and the connection is free for other statements in between: what is read may depend on what the
    same transaction wrote.
    """
    query = features_query(features, HABITS_TABLE, days_table=days_table)
    with connection.cursor() as cursor:
        cursor.execute("set local cursor_tuple_fraction = 1")  # plan for all rows, not for the first of them
        cursor.execute(f"declare readings_to_score no scroll cursor for {query}")
        cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})  # COPY takes no FETCH
        while True:
            cursor.execute(f"fetch forward {batch_readings} from readings_to_score")
            table = cursor.fetch_arrow_table()
            if not table.num_rows:
                break
            yield from table.combine_chunks().to_batches()
        cursor.execute("close readings_to_score")


@contextmanager
def open_features(postgres: Postgres) -> Iterator[Any]:
    """A connection to the feature table, in one transaction; what it writes counts when the caller commits.

    Raises:
        ModelError: The table, or a column of it that features need, is not there.
    """
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
    with postgres.connect_arrow() as arrow_connection:
        yield arrow_connection
