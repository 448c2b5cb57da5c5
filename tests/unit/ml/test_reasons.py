import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.ml import features, pending, reasons, train_anomaly_model
from energy_iot.ml.reasons import explain_reading


@pytest.mark.parametrize("module", [features, pending, reasons, train_anomaly_model])
def test_examples_in_docstrings(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (
            (2.1, 4.2, 3.14, "high_consumption"),
            [
                "3.1 standard deviations above what this meter uses at this hour of the week",
                "4.2 times its own 24 h average (0.5 kWh)",
            ],
        ),
        (
            (0.02, 0.05, -2.75, "low_consumption"),
            [
                "2.8 standard deviations below what this meter uses at this hour of the week",
                "5 % of its own 24 h average (0.4 kWh)",
            ],
        ),
        (
            (0.0, 0.0, -12.4, "low_consumption"),
            [
                "12 standard deviations below what this meter uses at this hour of the week",
                "nothing used, while its own 24 h average is above zero",
            ],
        ),
        ((0.001, 0.004, 0.2, "unusual_pattern"), ["less than 1 % of its own 24 h average (0.25 kWh)"]),
        ((-0.3, -2.0, 0.0, "unusual_pattern"), ["-0.3 kWh: a meter that counts backwards"]),
        (
            (0.5, 1.1, 0.4, "unusual_pattern"),
            ["no single figure stands out: the combination of level, spread and shares is rare"],
        ),
        (
            (3.0, 30.0, None, "unusual_pattern"),
            [
                "30 times its own 24 h average (0.1 kWh)",
                "too little history to compare with this hour of the week",
            ],
        ),
        ((0.5, 1.0, 0.1, None), []),
        ((0.5, float("nan"), float("nan"), None), []),
        ((None, 2.5, None, None), ["2.5 times its own 24 h average"]),
    ],
)
def test_reasons(reading: tuple[float | None, float | None, float | None, str | None], expected: list[str]) -> None:
    assert explain_reading(*reading) == expected


_FIGURES = st.one_of(st.none(), st.floats())


@given(_FIGURES, _FIGURES, _FIGURES, st.sampled_from(["high_consumption", "low_consumption", "unusual_pattern"]))
def test_an_anomaly_always_has_a_readable_reason(
    consumption: float | None, ratio: float | None, z_score: float | None, anomaly_type: str
) -> None:
    told = explain_reading(consumption, ratio, z_score, anomaly_type)
    assert told
    assert all("nan" not in sentence and "inf" not in sentence.split() for sentence in told)
