"""Outcomes in the database: what was received last counts."""

from datetime import date

import pytest

from energy_iot.ml.inspections import Inspection, describe_inspections, outcomes_frame, read_inspections
from energy_iot.storage.postgres import Postgres


@pytest.fixture
def stored(postgres: Postgres) -> Postgres:
    with postgres.connect() as connection:
        connection.execute(
            "insert into raw_data.inspections "
            "(meter_id, inspected_on, found_theft, kind, recovered_kwh, source_file, file_id) values "
            "('M1', '2025-04-01', false, null, null, 'a.csv', 1), "
            "('M2', '2025-04-02', true, 'bypass', 120.5, 'a.csv', 1), "
            "('M1', '2025-05-01', true, null, 30, 'a.csv', 1), "
            "('M2', '2025-04-02', false, null, null, 'b.csv', 2)"
        )
    return postgres


def test_the_newest_come_first_and_a_correction_counts(stored: Postgres) -> None:
    with stored.connect() as connection:
        found = read_inspections(connection)
        assert found == [
            Inspection("M1", date(2025, 5, 1), True, None, 30.0),
            Inspection("M2", date(2025, 4, 2), False, None, None),
            Inspection("M1", date(2025, 4, 1), False, None, None),
        ]
        assert read_inspections(connection, meter_id="M2") == [found[1]]
        assert read_inspections(connection, meter_id="none") == []
    assert describe_inspections(found) == "3 inspections, theft found in 1, 30 kWh recovered"
    assert outcomes_frame(found).rows()[0] == ("M1", date(2025, 5, 1), True)
