"""Numbers, times and names as people read them: thousands separators, sensible digits, units, UTC."""

import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

THIN: Final = "\u202f"  # narrow no-break space between a number and its unit
ENERGY_UNITS: Final = ((1e6, "GWh"), (1e3, "MWh"), (1.0, "kWh"))
MOST_DECIMALS: Final = 4
MOST_ITEMS: Final = 12
DASH: Final = "\u2013"


def count(value: float | None) -> str:
    """A whole number: 2,049,280; a dash where there is none."""
    return DASH if value is None else f"{value:,.0f}"


def figure(value: float | None, digits: int = 3) -> str:
    """Three significant digits, never less than the whole number, never more than four decimals.

    Example:
        >>> figure(1234.56), figure(12.345), figure(0.01234), figure(0.0000004), figure(0.0)
        ('1,235', '12.3', '0.0123', '<0.0001', '0')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if abs(value) < 10**-MOST_DECIMALS:
        return f"{'<' if value > 0 else '>-'}{10**-MOST_DECIMALS:.{MOST_DECIMALS}f}"
    decimals = min(MOST_DECIMALS, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: float | None) -> str:
    r"""A share of 1 as per cent; what is not none or all of it never reads as 0 or 100 per cent.

    Example:
        >>> [share(value).replace("\u202f", " ") for value in (0.0, 0.00001, 0.003, 0.0526, 0.99999, 1.0)]
        ['0 %', '<0.01 %', '0.30 %', '5.3 %', '>99.9 %', '100 %']
    """
    if value is None or not math.isfinite(value):
        return DASH
    percent = value * 100
    if 0 < percent < 0.01:
        text = "<0.01"
    elif 99.95 <= percent < 100:
        text = ">99.9"
    elif 0 < percent < 1:
        text = f"{percent:.2f}"
    else:
        text = f"{percent:.1f}".removesuffix(".0")
    return f"{text}{THIN}%"


def energy_unit(largest_kwh: float) -> tuple[float, str]:
    """How many kWh the unit holds that suits `largest_kwh`, and its name: from 10 MWh on MWh, from 10 GWh on GWh."""
    return next(((size, name) for size, name in ENERGY_UNITS if abs(largest_kwh) >= 10 * size), ENERGY_UNITS[-1])


def energy(kwh: float | None) -> str:
    """Energy with its unit: 0.51 kWh, 4,210 kWh, 34.1 MWh."""
    if kwh is None:
        return DASH
    size, name = energy_unit(kwh)
    return f"{figure(kwh / size)}{THIN}{name}"


def money(value: float | None, currency: str) -> str:
    r"""An amount with its currency, three significant digits or the whole number.

    Example:
        >>> money(1234567.8, "XOF").replace("\u202f", " ")
        '1,234,568 XOF'
    """
    return DASH if value is None else f"{figure(value)}{THIN}{currency}"


def day(value: date) -> str:
    """16 Dec 2006."""
    return f"{value.day} {value:%b %Y}"


def instant(value: datetime) -> str:
    """2010-11-26 21:02, with seconds only where there are some; UTC, which the heading beside it says."""
    return value.strftime("%Y-%m-%d %H:%M:%S" if value.second else "%Y-%m-%d %H:%M")


def duration(seconds: float | None) -> str:
    """0.4 s, 12.3 s, 2 min 05 s, 3 h 20 min, 5 d 3 h."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s" if seconds >= 0.05 or seconds == 0 else f"<0.1{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{THIN}h {minutes:02d}{THIN}min"
    days, hours = divmod(hours, 24)
    return f"{days}{THIN}d {hours}{THIN}h"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """1 meter, 2,000 meters; `nouns` where the plural is not just an s more."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def words(identifier: str) -> str:
    """expect_column_values_to_not_be_null -> column values to not be null."""
    return identifier.removeprefix("expect_").replace("_", " ")


def value_text(value: Any) -> str:
    """Any JSON value in a line: figures shortened, lists joined, long lists by their ends.

    Example:
        >>> value_text({"rows": 5000, "seed": None}), value_text(list(range(300)))
        ('rows 5,000, seed none', '0, 1, 2 ... 299 (300 values)')
    """
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return figure(value, 4)
    if isinstance(value, list | tuple) and len(value) > MOST_ITEMS:
        first = ", ".join(value_text(item) for item in value[:3])
        return f"{first} ... {value_text(value[-1])} ({count(len(value))} values)"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value) or "none"
    if isinstance(value, dict):
        texts = ((key, "none" if item is None else value_text(item)) for key, item in value.items())
        return ", ".join(f"{key} {text}" for key, text in texts) or "none"
    return str(value)


def limits(parameters: Mapping[str, Any]) -> str:
    """The bounds of an expectation, in words."""
    named = {"min_value": "at least", "max_value": "at most", "value_set": "one of", "mostly": "in a share of"}
    return ", ".join(
        f"{name} {value_text(parameters[key])}" for key, name in named.items() if parameters.get(key) is not None
    )
