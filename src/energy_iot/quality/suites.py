"""The committed suites: their files, their thresholds from the settings, and how they read for a slice of a table."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from energy_iot.settings import PROJECT_DIR, Settings

CONTEXT_DIR: Final = PROJECT_DIR / "great_expectations"

# suite parameters ($PARAMETER in the JSON files): settings of the same name
PARAMETERS: Final = (
    "max_consumption_kwh",
    "min_temperature_c",
    "max_temperature_c",
    "min_completeness",
    "max_null_share",
    "min_voltage_v",
    "max_voltage_v",
)

# the tolerances of the suites are meant for a month of readings or more
TOLERANCE_DAYS: Final = 30
TOLERATED_ROWS: Final = 5


def suite_file(name: str, folder: Path = CONTEXT_DIR) -> Path:
    """The JSON file of a suite."""
    return folder / "expectations" / f"{name}.json"


def read_suites(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The committed suites by name."""
    return {name: json.loads(suite_file(name).read_bytes()) for name in names}


def suite_parameters(settings: Settings) -> dict[str, Any]:
    """The thresholds of the suites, from the settings."""
    return {name: getattr(settings, name) for name in PARAMETERS}


def suite_for_slice(suite: dict[str, Any], *, rows: int, days: int) -> dict[str, Any]:
    """The suite as it judges the rows that are new, not the whole table.

    Rules about the whole table are left out. Critical rules that tolerate a share tolerate more of it, see
    `slice_mostly`; warnings do not: on a small slice they come sooner, and stop nothing.

    Args:
        suite: As committed.
        rows: Rows of the slice.
        days: Dates that changed.
    """
    cut = copy.deepcopy(suite)
    cut["expectations"] = [rule for rule in cut["expectations"] if not rule["meta"].get("whole_table_only")]
    for rule in cut["expectations"]:
        if rule["severity"] == "critical" and "mostly" in rule["kwargs"]:
            rule["kwargs"]["mostly"] = slice_mostly(rule["kwargs"]["mostly"], rows=rows, days=days)
    return cut


def slice_mostly(mostly: float, *, rows: int, days: int) -> float:
    """The share of a slice that must hold where `mostly` of a whole table must.

    As many rows may break the rule as a month of such days may have, and five in any case: one bad hour of a weather
    station is 4 % of its day, one spike 2 % of a day of half-hours, and neither is a broken feed. Never more than half.

    Example:
        >>> slice_mostly(0.99, rows=24_000, days=1)
        0.7
        >>> slice_mostly(0.999, rows=48, days=1)  # five readings
        0.895833
        >>> slice_mostly(0.99, rows=700_000, days=365)
        0.99
    """
    of_month = (1 - mostly) * max(1, TOLERANCE_DAYS / days)
    of_few_rows = min(TOLERATED_ROWS, rows // 2) / max(rows, 1)
    # rounded down: the last digit of a quotient must not decide
    return int((1 - min(max(of_month, of_few_rows), 0.5)) * 1e6 + 1e-3) / 1e6
