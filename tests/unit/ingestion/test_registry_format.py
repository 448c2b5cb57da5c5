"""Files beside the readings: which header is which, and which lines become rows."""

from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers.batch import LINE, Batch
from energy_iot.ingestion.registry_format import FORMATS, RegistryParser, recognise_registry
from energy_iot.settings import Settings

NOW = datetime(2026, 1, 1)
GOOD = {
    "meters": {"meter_id": "m1", "transformer_id": "t1", "valid_from": "2024-01-31"},
    "network_nodes": {"node_id": "t1", "node_type": "transformer", "parent_id": "f1", "valid_from": "2024-01-31"},
    "network_readings": {"node_id": "t1", "timestamp": "2024-01-31 08:00:00", "energy_in_kwh": "1.5"},
    "outages": {"node_id": "t1", "start_time": "2024-01-31 08:00:00", "end_time": "2024-01-31 09:00:00"},
    "inspections": {"meter_id": "m1", "inspected_on": "2024-01-31", "found_theft": "true"},
}


def parse(content: str, *rows: dict[str, str]) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """Rows of the table, and (line, reason) of the others; each row is GOOD with other values."""
    lines = [GOOD[content] | row for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    layout = recognise_registry(",".join(names).encode(), "file.csv")
    assert layout is not None
    assert layout.mapping_name == content
    frame = pl.DataFrame(
        {LINE: range(2, len(lines) + 2)} | {name: [line.get(name) or None for line in lines] for name in names},
        schema={LINE: pl.Int64} | dict.fromkeys(names, pl.String),
    )
    batch = Batch("file.csv", frame, [], 0, 0, lambda line: ",".join(lines[line - 2].values()))
    parsed, rejects = RegistryParser(Settings(), NOW).parse(batch, layout)
    assert parsed.height + len(rejects) == len(lines)
    return parsed, [(reject.line_number, reject.reason) for reject in rejects]


@pytest.mark.parametrize("content", GOOD)
def test_a_good_line_has_all_columns_of_its_table(content: str) -> None:
    parsed, rejects = parse(content, {})
    assert rejects == []
    assert parsed.columns == [column.name for column in FORMATS[content].columns]
    assert {name: value for name, value in parsed.row(0, named=True).items() if value is None}.keys() == (
        set(parsed.columns) - set(GOOD[content])
    )


@pytest.mark.parametrize(
    ("content", "changed", "reason"),
    [
        ("meters", {"meter_id": " "}, "meter_id is missing"),
        ("meters", {"meter_id": "m" * 201}, "meter_id 'mmm"),
        ("meters", {"customer_class": "church"}, "customer_class 'church' is none of residential, commercial, ind"),
        ("meters", {"tariff_per_kwh": "-1"}, "tariff_per_kwh '-1' is negative"),
        ("meters", {"tariff_per_kwh": "nan"}, "tariff_per_kwh 'nan' is not a number"),
        ("meters", {"contracted_power_kw": "3 kW"}, "contracted_power_kw '3 kW' is not a number"),
        ("meters", {"is_prepaid": "maybe"}, "is_prepaid 'maybe' is neither true nor false"),
        ("meters", {"latitude": "91"}, "latitude '91' is not between -90 and 90"),
        ("meters", {"valid_from": "31/01/2024"}, "valid_from '31/01/2024' is no date as 2024-01-31"),
        ("meters", {"valid_from": "2024-1-31"}, "valid_from '2024-1-31' is no date"),
        ("meters", {"valid_from": "2024-02-30"}, "valid_from '2024-02-30' is no date"),
        ("meters", {"valid_from": ""}, "valid_from is missing"),
        ("meters", {"valid_to": "2024-01-30"}, "valid_to '2024-01-30' is before valid_from"),
        ("network_nodes", {"node_type": "pylon"}, "node_type 'pylon' is none of substation, feeder, transformer"),
        ("network_nodes", {"node_type": ""}, "node_type is missing"),
        ("network_nodes", {"rated_kva": "-100"}, "rated_kva '-100' is negative"),
        ("network_nodes", {"longitude": "-181"}, "longitude '-181' is not between -180 and 180"),
        ("network_readings", {"timestamp": "yesterday"}, "timestamp 'yesterday' is no time as"),
        ("network_readings", {"timestamp": "1999-12-31 23:30:00"}, "timestamp '1999-12-31 23:30:00' is before 2000"),
        ("network_readings", {"timestamp": "2026-01-03 00:00:00"}, "timestamp '2026-01-03 00:00:00' is in the future"),
        ("network_readings", {"energy_in_kwh": "1e12"}, "energy_in_kwh '1e12' is not a number from"),
        ("outages", {"end_time": "2024-01-31 07:59:59"}, "end_time '2024-01-31 07:59:59' is before start_time"),
        ("inspections", {"found_theft": ""}, "found_theft is missing"),
        ("inspections", {"recovered_kwh": "-5"}, "recovered_kwh '-5' is negative"),
    ],
)  # fmt: skip
def test_a_bad_line_is_rejected_with_its_first_fault(content: str, changed: dict[str, str], reason: str) -> None:
    parsed, ((line, found),) = parse(content, {}, changed, {})
    assert (parsed.height, line) == (2, 3)
    assert found.startswith(reason)


def test_values_as_people_write_them() -> None:
    parsed, rejects = parse(
        "meters",
        {"is_prepaid": "Yes", "customer_class": " Residential ", "tariff_per_kwh": "1e2", "valid_to": "2024-01-31"},
        {"is_prepaid": "0", "currency": "XOF"},
    )
    assert rejects == []
    wanted = ("is_prepaid", "customer_class", "tariff_per_kwh", "currency", "valid_from", "valid_to")
    day = date(2024, 1, 31)
    assert parsed.select(wanted).rows() == [
        (True, "residential", 100.0, None, day, day),
        (False, None, None, "XOF", day, None),
    ]


def test_a_time_may_name_its_offset_and_an_outage_may_end_tomorrow() -> None:
    parsed, rejects = parse(
        "outages", {"start_time": "2026-01-01T00:30:00+01:00", "end_time": "2027-01-01 00:00:00"}, {"end_time": ""}
    )
    assert rejects == []
    assert parsed["start_time"].to_list() == [datetime(2025, 12, 31, 23, 30), datetime(2024, 1, 31, 8)]
    assert parsed["end_time"].to_list() == [datetime(2027, 1, 1), None]


@pytest.mark.parametrize(("delimiter", "accepted"), [(";", 2), ("\t", 2), (",", 1)])
def test_decimal_commas_where_fields_are_separated_otherwise(delimiter: str, accepted: int) -> None:
    layout = recognise_registry(delimiter.join(GOOD["network_readings"]).encode(), "file.csv")
    assert layout is not None
    frame = pl.DataFrame(
        {LINE: [2, 3], "node_id": ["t1", "t1"], "timestamp": ["2024-01-31 08:00"] * 2, "energy_in_kwh": ["1,5", "2.5"]}
    )
    parsed, rejects = RegistryParser(Settings(), NOW).parse(Batch("f", frame, [], 0, 0, str), layout)
    assert parsed["energy_in_kwh"].to_list() == [1.5, 2.5][-accepted:]
    assert len(rejects) == 2 - accepted


def test_a_network_reading_without_energy_is_kept() -> None:
    parsed, rejects = parse("network_readings", {"energy_in_kwh": ""})
    assert (parsed["energy_in_kwh"].to_list(), rejects) == ([None], [])


@pytest.mark.parametrize(
    ("header", "kind", "ignored"),
    [
        (b"METER_ID, Transformer_ID ,valid_from", "meters", ()),
        (b"\xef\xbb\xbfmeter_id,transformer_id,valid_from,colour", "meters", ("colour",)),
        (b"energy_in_kwh,timestamp,node_id", "network_readings", ()),
        (b"node_id;timestamp;energy_in_kwh", "network_readings", ()),
        (b"meter_id\ttransformer_id\tvalid_from\tRue", "meters", ("Rue",)),
        (b"meter_id,address", None, ()),
        (b"subject_id,subject_type,kind,is_theft,start_time,end_time,stolen_kwh", None, ()),
        (b"meter_id,kind,start,end,readings", None, ()),
    ],
)
def test_a_header_tells_its_kind(header: bytes, kind: str | None, ignored: tuple[str, ...]) -> None:
    layout = recognise_registry(header, "file.csv")
    assert (layout.mapping_name, layout.ignored) == (kind, ignored) if layout else kind is None


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"meter_id,transformer_id,valid_from,Meter_id", "meter_id more than once"),
        (b"meter_id,transformer_id,valid_from,inspected_on,found_theft", "several kinds of file: meters, inspections"),
    ],
)
def test_a_header_of_two_meanings_is_refused(header: bytes, problem: str) -> None:
    with pytest.raises(InputFileError, match=problem):
        recognise_registry(header, "file.csv")


@given(
    content=st.sampled_from(sorted(GOOD)),
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=14, max_size=14),
    keep=st.lists(st.booleans(), min_size=14, max_size=14),
)
def test_no_text_is_lost_or_breaks_it(content: str, texts: list[str], keep: list[bool]) -> None:
    names = [column.name for column in FORMATS[content].columns]
    odd = {name: text for name, text, kept in zip(names, texts, keep, strict=False) if not kept}
    parsed, rejects = parse(content, {}, odd)
    assert parsed.height in (1, 2)
    assert all(reason for _, reason in rejects)
