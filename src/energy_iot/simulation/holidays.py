"""Public holidays of Burkina Faso: a working day on which shops are shut and families are at home.

Dates as in the country's law on feast days (13-2018/AN and its amendments): fixed civil and Christian days, days that
move with Easter, and three days of the Islamic calendar. The latter are announced a day or so ahead, on sight of the
moon; the tabular calendar used here may be off by one day, which a simulation can bear.
"""

from datetime import date, timedelta
from typing import Final

FIXED: Final = (
    (1, 1),  # New Year
    (1, 3),  # uprising of 1966
    (3, 8),  # women's day
    (5, 1),  # labour day
    (5, 15),  # customs and traditions
    (8, 5),  # independence
    (8, 15),  # Assumption
    (11, 1),  # All Saints
    (12, 11),  # proclamation of the republic
    (12, 25),  # Christmas
)
AFTER_EASTER_DAYS: Final = (1, 39)  # Easter Monday, Ascension
ISLAMIC: Final = ((10, 1), (12, 10), (3, 12))  # end of Ramadan, feast of sacrifice, birth of the Prophet

# The tabular ("civil") Islamic calendar: 354 days a year and 11 leap days in 30 years, from 19 July 622 (Gregorian)
ISLAMIC_EPOCH: Final = date(622, 7, 19)
ISLAMIC_YEAR_DAYS: Final = 354.3667


def public_holidays(first: date, days: int) -> frozenset[date]:
    """Public holidays among `days` days from `first`."""
    last = first + timedelta(days=days - 1)
    holidays = set()
    for year in range(first.year, last.year + 1):
        holidays |= {date(year, month, day) for month, day in FIXED}
        holidays |= {_easter(year) + timedelta(days=after) for after in AFTER_EASTER_DAYS}
    for year in range(_islamic_year(first) - 1, _islamic_year(last) + 2):
        holidays |= {_from_islamic(year, month, day) for month, day in ISLAMIC}
    return frozenset(holiday for holiday in holidays if first <= holiday <= last)


def _easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar, by Butcher's algorithm (Meeus, Astronomical Algorithms, chapter 8)."""
    a = year % 19
    b, c = divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


def _islamic_year(day: date) -> int:
    return 1 + int((day - ISLAMIC_EPOCH).days / ISLAMIC_YEAR_DAYS)


def _from_islamic(year: int, month: int, day: int) -> date:
    """Months have 30 and 29 days in turn; (3 + 11 * year) // 30 leap days have gone before `year`."""
    days = (year - 1) * 354 + (3 + 11 * year) // 30 + 29 * (month - 1) + month // 2 + day - 1
    return ISLAMIC_EPOCH + timedelta(days=days)
