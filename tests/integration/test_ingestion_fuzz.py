"""Files that nobody meant through ingest_data, retry_rejects and forget on a real PostgreSQL."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from energy_iot.errors import InputFileError
from energy_iot.ingestion.file_layout import FileLayout
from energy_iot.ingestion.forget import forget
from energy_iot.ingestion.load_data import ingest_data
from energy_iot.ingestion.reject_list import export_rejects, list_rejects
from energy_iot.ingestion.rejects import retry_rejects
from energy_iot.pipeline import RunContext
from energy_iot.storage.postgres import Postgres
from tests.unit.ingestion.mutations import Mutant, make_mutant

FILES = 40
HEAVY_FILES = 250
RAW_TABLES = ("ingested_files", "meter_readings", "rejected_readings")


@pytest.mark.parametrize("count", [FILES, pytest.param(HEAVY_FILES, marks=pytest.mark.heavy)])
def test_mutated_files_are_in_the_database_whole_or_not_at_all(
    tmp_path: Path,
    make_context: Callable[..., RunContext],
    postgres: Postgres,
    record_property: Callable[[str, object], None],
    count: int,
) -> None:
    outcomes: Counter[str] = Counter()
    context = make_context(max_rejected_share=1)
    for number in range(count):
        mutant = make_mutant(f"loaded-{count}-{number}")
        path = tmp_path / os.fsdecode(mutant.name)
        path.write_bytes(mutant.content)
        try:
            outcomes[
                load_retry_forget(replace(context, options=replace(context.options, files=(path,))), mutant, postgres)
            ] += 1
        except BaseException as error:
            error.add_note(f"make_mutant('loaded-{count}-{number}'): {mutant.story}")
            raise
        path.unlink()
    record_property("mutated_files", outcomes.total())
    assert min(outcomes["refused"], outcomes["loaded"]) > count / 10


def load_retry_forget(context: RunContext, mutant: Mutant, postgres: Postgres) -> str:
    try:
        report = ingest_data(context)
    except InputFileError as error:
        assert counts(postgres) == [0, 0, 0]
        storable(postgres, str(error), {})
        return "refused"
    storable(postgres, " ".join(report.warnings), dict(report.details))
    files, readings, rejects = counts(postgres)
    assert files == 1
    assert readings + rejects in mutant.records
    ((sha256, lines, loaded, rejected, without, layout),) = rows(
        postgres,
        "select sha256, lines_read, readings_loaded, readings_rejected, readings_without_consumption, layout "
        "from raw_data.ingested_files",
    )
    assert (lines, loaded, rejected) == (readings + rejects, readings, rejects)
    assert rows(postgres, "select count(*) from raw_data.meter_readings where electricity_consumed is null") == [
        (without,)
    ]
    assert FileLayout.model_validate(layout).interval_minutes > 0
    changed = "select meter_id, reading_date from raw_data.changed_days "
    changed += "where change_id = (select max(change_id) from raw_data.changes)"
    days = "select distinct meter_id, cast(timestamp as date) from raw_data.meter_readings"
    touched = sorted(rows(postgres, changed))
    assert touched == sorted(rows(postgres, days))
    if rejects and not mutant.content.startswith(b"PAR1"):  # whose rows are no lines to try again
        exported = context.options.files[0].with_suffix(".export")
        assert export_rejects(postgres, exported) == rejects
        assert sum(file.open for file in list_rejects(postgres).files) == rejects
        before = rows(postgres, "select id, raw_text, reason from raw_data.rejected_readings order by id")
        for corrections in (None, exported):  # nothing was corrected
            retried = retry_rejects(replace(context, options=replace(context.options, corrected_rejects=corrections)))
            assert retried.rows_out == 0
        assert rows(postgres, "select id, raw_text, reason from raw_data.rejected_readings order by id") == before
        exported.unlink()
    forgotten = forget(replace(context, options=replace(context.options, forget_file=sha256)))
    assert forgotten.rows_in == readings
    assert counts(postgres) == [0, 0, 0]
    assert sorted(rows(postgres, changed)) == touched
    return "loaded"


def counts(postgres: Postgres) -> list[int]:
    return [rows(postgres, f"select count(*) from raw_data.{name}")[0][0] for name in RAW_TABLES]


def rows(postgres: Postgres, query: str) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query).fetchall()


def storable(postgres: Postgres, text: str, details: dict[str, Any]) -> None:
    """As runs keep what a step tells."""
    with postgres.connect() as connection:
        connection.execute("select %s::text, %s::jsonb", (text, Jsonb(details)))
