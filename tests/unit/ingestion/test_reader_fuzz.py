"""Thousands of files that nobody meant through the real reading path: refused for a person, or no line lost."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest

from energy_iot.errors import InputFileError
from energy_iot.ingestion.faults import LARGEST_NUMBER, LONGEST_TEXT
from energy_iot.ingestion.parse_readings import ReadingParser
from energy_iot.ingestion.readers import text as text_reader
from energy_iot.ingestion.source_files import inspect
from energy_iot.ingestion.sources import load_mappings
from energy_iot.settings import Settings

from .mutations import Mutant, make_mutant

BATCHES, FILES_A_BATCH = 6, 500
HEAVY_BATCHES, HEAVY_FILES_A_BATCH = 5, 2_000
NOW = datetime(2030, 1, 1)
ZONES = ("UTC", "Africa/Cairo", "Africa/Lagos")
MOST_SECONDS = 20  # on a busy machine; it takes milliseconds
MOST_MEMORY_MB = 600
Record = Callable[[str, object], None]


def check(mutant: Mutant, path: Path, settings: Settings, mappings: dict) -> str:
    """Read it; what became of it."""
    parser = ReadingParser(settings, NOW)
    lines = blank = accepted = 0
    rejects, last = [], Counter()
    try:
        found = inspect(path, mappings, verify=True)
        for batch, layout in found.read():
            parsed = parser.parse(batch, layout)
            lines, blank = lines + batch.records, blank + batch.blank
            accepted += parsed.readings.height
            rejects += parsed.rejects
            check_readings(parsed.readings, settings)
            for reject in parsed.rejects:
                assert reject.line_number > last[batch.part], "a line twice among the rejects"
                last[batch.part] = reject.line_number
    except InputFileError as error:
        for said in (error.problem, error.fix):
            assert said.strip()
            assert "\0" not in said
            said.encode()
        return "refused"
    assert accepted + len(rejects) == lines
    assert lines in mutant.records, f"{lines} of {set(mutant.records)} lines were accounted for"
    assert mutant.blank is None or blank == mutant.blank, f"{blank} of {mutant.blank} blank lines were reported"
    for warning in found.warnings:
        assert "\0" not in warning
        warning.encode()
    for reject in rejects:
        assert reject.reason.strip()
        assert reject.reason.isprintable()
        for said in reject:
            assert "\0" not in str(said)
            str(said).encode()
        assert len(reject.raw_text) < 10_100
        assert len(reject.reason) < 1_000
    return "with rejects" if rejects else "whole"


def check_readings(readings: pl.DataFrame, settings: Settings) -> None:
    if not readings.height:
        return
    for name, kind in readings.schema.items():
        if kind == pl.Float64:
            present = readings[name].drop_nulls()
            assert present.is_finite().all()
            assert (present.abs() <= LARGEST_NUMBER).all()
    times = readings["timestamp"]
    assert times.null_count() == 0
    assert times.min() >= settings.earliest_timestamp
    assert times.max() <= NOW + timedelta(hours=settings.max_future_hours)
    meters = readings["meter_id"]
    assert meters.null_count() == 0
    assert meters.str.len_chars().is_between(1, LONGEST_TEXT).all()
    assert not meters.str.contains("\0", literal=True).any()


@pytest.fixture
def memory() -> Iterator[None]:
    """Sees to it that the peak of this process stays bounded."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak_mb()
    yield
    assert peak_mb() - before < MOST_MEMORY_MB


def peak_mb() -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024


def feed(folder: Path, seeds: list[str], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    mappings = load_mappings()
    settings = {zone: Settings(time_zone=zone) for zone in ZONES}
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        mutant = make_mutant(seed)
        rng = Random(seed)
        # also in a few pieces: a line may be cut anywhere
        chunk_bytes = rng.choice((text_reader.CHUNK_BYTES, max(100, len(mutant.content) // rng.randint(2, 6))))
        monkeypatch.setattr(text_reader.read_text, "__kwdefaults__", {"chunk_bytes": chunk_bytes})
        path = folder / os.fsdecode(mutant.name)
        path.write_bytes(mutant.content)
        started = time.monotonic()
        try:
            outcomes[check(mutant, path, settings[rng.choice(ZONES)], mappings)] += 1
        except BaseException as error:  # of any kind, and polars' panics are no Exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            error.add_note(f"make_mutant({seed!r}): {mutant.story}; chunks of {chunk_bytes} bytes")
            raise
        assert time.monotonic() - started < MOST_SECONDS, f"make_mutant({seed!r}): {mutant.story}"
        path.unlink()
    return outcomes


def tell(outcomes: Counter[str], record_property: Record) -> None:
    record_property("mutated_files", outcomes.total())
    # neither is a test if all files are refused, or none
    assert min(outcomes["refused"], outcomes["with rejects"], outcomes["whole"]) > outcomes.total() / 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutated_files_lose_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: None, record_property: Record, batch: int
) -> None:
    seeds = [f"{batch}-{number}" for number in range(FILES_A_BATCH)]
    tell(feed(tmp_path, seeds, monkeypatch), record_property)


@pytest.mark.heavy
@pytest.mark.parametrize("batch", range(HEAVY_BATCHES))
def test_many_mutated_files_lose_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: None, record_property: Record, batch: int
) -> None:
    seeds = [f"heavy-{batch}-{number}" for number in range(HEAVY_FILES_A_BATCH)]
    tell(feed(tmp_path, seeds, monkeypatch), record_property)
