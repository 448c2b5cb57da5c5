"""The mapping files: what they may say, and which header is whose."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from energy_iot.errors import InputFileError
from energy_iot.ingestion.sources import (
    SOURCES_DIR,
    EnergyColumn,
    SourceMapping,
    choose_mappings,
    load_mapping,
    load_mappings,
    recognise,
)

KAGGLE = b"Timestamp,Electricity_Consumed,Temperature,Humidity,Wind_Speed,Avg_Past_Consumption,Anomaly_Label"
UCI = (
    b"Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    b"Sub_metering_1;Sub_metering_2;Sub_metering_3"
)
MINIMAL: dict[str, Any] = {
    "description": "mine",
    "timestamp": {"columns": ["when"]},
    "readings": {"consumption": {"column": "kwh"}},
}


@pytest.mark.parametrize(
    ("header", "source", "ignored"),
    [
        (KAGGLE, "kaggle_smart_meter", ()),
        (KAGGLE.upper(), "kaggle_smart_meter", ()),
        (UCI, "uci_household_power", ()),
        (b"meter_id,timestamp,consumption_kwh", "long_format", ()),
        (b"\xef\xbb\xbf timestamp , CONSUMPTION_KWH,meter_id", "long_format", ()),
        (b'"meter_id","consumption_kwh","timestamp","voltage_v"', "long_format", ()),
        (b"tariff,meter_id,timestamp,consumption_kwh,,Zone", "long_format", ("tariff", "Zone")),
    ],
)
def test_a_header_tells_its_source(header: bytes, source: str, ignored: tuple[str, ...]) -> None:
    layout = recognise(header, load_mappings(), "file.csv")
    assert (layout.mapping_name, layout.ignored) == (source, ignored)


def test_an_unknown_header_says_what_was_found_expected_and_missing() -> None:
    with pytest.raises(InputFileError) as caught:
        recognise(b"meter_id,timestamp,energy", load_mappings(), "odd.csv")
    text = str(caught.value)
    assert "odd.csv: unknown header: meter_id,timestamp,energy" in text
    assert "long_format, also needs: consumption_kwh" in text
    assert "uci_household_power: Date;Time;Global_active_power" in text
    assert "--source" in caught.value.fix


def test_a_column_twice_is_refused() -> None:
    with pytest.raises(InputFileError, match="timestamp more than once"):
        recognise(b"meter_id,timestamp,Timestamp,consumption_kwh", load_mappings(), "twice.csv")


def test_a_header_that_fits_two_sources_asks_which() -> None:
    mapping = SourceMapping.model_validate(MINIMAL)
    with pytest.raises(InputFileError, match="several sources: one, two") as caught:
        recognise(b"when,kwh", {"one": mapping, "two": mapping}, "file.csv")
    assert "--source one" in caught.value.fix


def test_the_fuller_of_two_fitting_sources_wins() -> None:
    fuller = SourceMapping.model_validate(
        MINIMAL | {"readings": {"consumption": {"column": "kwh"}, "voltage": {"column": "volt"}}}
    )
    mappings = {"bare": SourceMapping.model_validate(MINIMAL), "fuller": fuller}
    assert recognise(b"when,kwh,volt", mappings, "file.csv").mapping_name == "fuller"


@pytest.mark.parametrize("path", sorted(SOURCES_DIR.glob("*.yml")), ids=lambda path: path.stem)
def test_the_mappings_of_the_project_are_valid(path: Path) -> None:
    assert load_mapping(path).required_columns


def test_the_commented_mapping_explains_every_field() -> None:
    content = yaml.safe_load((SOURCES_DIR / "long_format.yml").read_text())
    assert set(content) == set(SourceMapping.model_fields)
    assert set(content["timestamp"]) == {"columns", "formats", "time_zone", "edge"}
    assert set(content["readings"]) == set(SourceMapping.model_fields["readings"].annotation.model_fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delimeter": ";"}, "delimeter: Extra inputs"),
        ({"delimiter": ";;"}, "delimiter: "),
        ({"delimiter": '"'}, "delimiter: .*cannot separate"),
        ({"encoding": "utf-16"}, "encoding: "),
        ({"decimal_comma": True}, "the file: .*another delimiter"),
        ({"interval_minutes": 0}, "interval_minutes: "),
        ({"null_values": [False]}, r"null_values\.0: "),
        ({"timestamp": {"columns": []}}, r"timestamp\.columns: "),
        ({"timestamp": {"columns": ["when"], "edge": "middle"}}, r"timestamp\.edge: .*'start' or 'end'"),
        ({"timestamp": {"columns": ["when"], "time_zone": "Africa/Nowhere"}}, r"timestamp\.time_zone: .*Nowhere"),
        ({"timestamp": {"columns": ["when"], "formats": ["%d/%m"]}}, r"timestamp\.formats: .*needs a year"),
        ({"timestamp": {"columns": ["when"], "formats": ["%s"]}}, r"timestamp\.formats: .*uses %s"),
        ({"timestamp": {"columns": ["when"], "formats": ["%Y%m%d%"]}}, r"timestamp\.formats: .*uses %"),
        ({"readings": {}}, r"readings\.consumption: Field required"),
        ({"readings": {"consumption": {"column": "kwh", "unit": "joule"}}}, r"readings\.consumption\.unit: "),
        ({"readings": {"consumption": {"column": "WHEN"}}}, "two meanings: when"),
        ({"meter": {"column": "m", "default_id": "d"}}, "meter: .*keep one"),
    ],
)
def test_a_wrong_mapping_names_file_and_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(yaml.safe_dump(MINIMAL | change))
    with pytest.raises(InputFileError, match=message) as caught:
        load_mapping(path)
    assert "broken.yml" in str(caught.value)


@pytest.mark.parametrize("content", [b"a: [", b"just words", b"", b"\xff\xfe", b"- 1\n- 2"])
def test_what_is_no_mapping_is_an_error_for_people(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yml"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"broken\.yml"):
        load_mapping(path)


def test_a_source_is_chosen_by_name_or_by_path(tmp_path: Path) -> None:
    path = tmp_path / "my_utility.yml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert list(choose_mappings(str(path))) == ["my_utility"]
    assert list(choose_mappings("uci_household_power")) == ["uci_household_power"]
    assert len(choose_mappings(None)) >= 3
    with pytest.raises(InputFileError, match="no source 'uci'") as caught:
        choose_mappings("uci")
    assert "uci_household_power" in caught.value.fix
    with pytest.raises(InputFileError, match="cannot be read"):
        choose_mappings(str(tmp_path / "absent.yml"))
    with pytest.raises(InputFileError, match="no mapping in"):
        load_mappings(tmp_path / "empty")


@pytest.mark.parametrize(
    ("unit", "interval", "value", "kwh"),
    [("kWh", 30, 1.5, 1.5), ("Wh", 30, 1500.0, 1.5), ("kW", 30, 3.0, 1.5), ("W", 15, 6000.0, 1.5), ("kW", 1, 90, 1.5)],
)
def test_units_become_kwh(unit: str, interval: int, value: float, kwh: float) -> None:
    numerator, denominator = EnergyColumn(column="c", unit=unit).kwh_ratio(interval)
    assert value * numerator / denominator == kwh
