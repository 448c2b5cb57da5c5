"""The fleet that the notebooks look at: generated and run through the pipeline once, in the folder they are run in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from energy_iot.ml.evaluation.fleet_run import own_settings, run_command
from energy_iot.ml.evaluation.truth import FleetTruth, read_truth
from energy_iot.settings import Settings
from energy_iot.simulation.fleet import generate
from energy_iot.storage.postgres import Postgres, open_postgres

FOLDER = Path(".fleet")
METERS, DAYS, SEED = 120, 84, 3  # seeds 1 to 9 are for development

alt.renderers.enable("png", ppi=80)  # pictures, which every viewer of notebooks shows
pl.Config(tbl_hide_dataframe_shape=True, tbl_rows=20, tbl_width_chars=140, fmt_str_lengths=200, float_precision=2)


@dataclass(frozen=True)
class Fleet:
    """A fleet in the pipeline's stores, and beside it what the pipeline was not told.

    Attributes:
        settings: What the pipeline ran with.
        postgres: The database, with all tables.
        readings: The file of readings that was loaded.
        anomalies: Odd readings that were planted, one row an episode.
        thefts: Each theft at a meter and each tap at a transformer, with its time and kWh.
        truth: The same by meter, and what happened to the innocent.
    """

    settings: Settings
    postgres: Postgres
    readings: Path
    anomalies: pl.DataFrame
    thefts: pl.DataFrame
    truth: FleetTruth

    def read(self, query: str) -> pl.DataFrame:
        """The answer of PostgreSQL."""
        with self.postgres.connect_arrow() as connection, connection.cursor() as cursor:
            cursor.execute(query)
            frame: Any = pl.from_arrow(cursor.fetch_arrow_table())
        return frame


@contextmanager
def opened_fleet() -> Iterator[Fleet]:
    """The fleet; the first time it is generated and run, which takes about a minute."""
    data, settings = FOLDER / "data", own_settings((FOLDER / "home").absolute())
    names = ("readings", "meters", "network_nodes", "network_readings", "outages")
    if not (data / "truth.csv").exists():
        generate(data, meters=METERS, days=DAYS, seed=SEED, taps_share=0.3, overwrite=True)
    files = [(data / f"{name}.csv").absolute() for name in names]
    run_command(FOLDER, settings.home, "run", *files)  # files that are loaded add nothing
    with open_postgres(settings) as postgres:
        meter_ids = pl.read_csv(data / "meters.csv")["meter_id"].unique().to_list()
        yield Fleet(
            settings,
            postgres,
            data / "readings.csv",
            pl.read_csv(data / "anomalies.csv", try_parse_dates=True),
            pl.read_csv(data / "truth.csv", try_parse_dates=True).filter("is_theft").drop("is_theft"),
            read_truth(data / "truth.csv", meter_ids),
        )
