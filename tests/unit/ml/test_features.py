import numpy as np
import pyarrow as pa
import pytest

from energy_iot.errors import ModelError
from energy_iot.ml.features import FEATURES, LIMIT, NEUTRAL, build_matrix, features_of_card

NAMES = [feature.name for feature in FEATURES]


def test_no_feature_is_computed_from_a_label_or_from_what_is_not_the_meters_own() -> None:
    inputs = {column for feature in FEATURES for column in feature.inputs}
    assert inputs
    assert not inputs & {"anomaly_label", "is_labelled_anomaly", "temperature_c", "humidity_pct", "wind_speed_kmh"}
    assert all(any(column in feature.value for column in feature.inputs) for feature in FEATURES)
    assert len(set(NAMES)) == len(NAMES)


def test_matrix_has_the_features_in_order_and_neutral_values_for_nulls() -> None:
    table = pa.table(
        {name: pa.array([position + 0.5, None], pa.float32()) for position, name in enumerate(NAMES)}
        | {"reading_id": [1, 2]}
    )
    for source in (table, table.to_batches()[0]):
        matrix = build_matrix(source, FEATURES[::-1])
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix[0], [position + 0.5 for position in reversed(range(len(NAMES)))])
        np.testing.assert_array_equal(matrix[1], np.full(len(NAMES), NEUTRAL))


def test_matrix_stays_within_the_limit() -> None:
    table = pa.table({NAMES[0]: pa.array([1e6, -1e6, 1.0], pa.float32())})
    np.testing.assert_array_equal(build_matrix(table, FEATURES[:1])[:, 0], [LIMIT, -LIMIT, 1.0])


def test_card_entries_come_back_as_the_features_they_were() -> None:
    assert features_of_card([feature.to_card() for feature in FEATURES[::-1]]) == FEATURES[::-1]


def test_another_description_is_no_other_feature() -> None:
    assert features_of_card([FEATURES[0].to_card() | {"description": "the same in other words"}]) == FEATURES[:1]


@pytest.mark.parametrize(
    "changed", [{"value": "ln(2)"}, {"habit": []}, {"relative": "1"}, {"neutral": 1.0}, {"limit": 3}]
)
def test_a_feature_computed_otherwise_is_named(changed: dict[str, object]) -> None:
    entries = [FEATURES[0].to_card(), FEATURES[2].to_card() | changed]
    with pytest.raises(ModelError, match=f"computed otherwise here: {NAMES[2]}"):
        features_of_card(entries)


def test_an_unknown_feature_is_named_with_what_to_do() -> None:
    entries = [FEATURES[0].to_card() | {"value": "1"}, FEATURES[1].to_card() | {"name": "moon_phase"}]
    with pytest.raises(ModelError) as raised:
        features_of_card(entries)
    assert "unknown here: moon_phase" in raised.value.problem
    assert f"computed otherwise here: {NAMES[0]}" in raised.value.problem
    assert "energy-iot train" in raised.value.fix
