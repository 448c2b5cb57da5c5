"""Readings of small random fleets as they reach a utility: in pieces, late, corrected, twice, in any order."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

HEADER = "meter_id,timestamp,consumption_kwh,voltage_v,temperature_c\n"


@dataclass(frozen=True)
class Feed:
    """Files of readings in the order they arrive, and what they hold.

    Attributes:
        files: Each file's lines, header left out.
        late: Readings that come in a later file than those of their day.
        corrections: Readings for a meter and instant that were sent before.
        duplicates: Lines sent again as they were.
    """

    files: tuple[tuple[str, ...], ...] = field(repr=False)
    late: int
    corrections: int
    duplicates: int

    def write(self, folder: Path) -> list[Path]:
        """Write the files; returns them in order."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, lines in enumerate(self.files):
            path = folder / f"part_{number:02}.csv"
            path.write_text(HEADER + "".join(lines))
            paths.append(path)
        return paths


@dataclass
class _Meter:
    name: str
    first: datetime
    interval: timedelta
    days: int
    level_kwh: float
    silent_days: set[int] = field(default_factory=set)


def random_feed(
    seed: int, *, meters: int, days: int, files: int, intervals_minutes: tuple[int, ...] = (15, 30, 60)
) -> Feed:
    """A feed; the same arguments give the same.

    Meters start and end on different days around the turn of a year, are silent for hours or days, and stand still or
    jump at times. Most of a day's readings arrive with their day; some arrive up to all files later, some again, some
    corrected, some without consumption. Files arrive in any order.
    """
    rng = random.Random(seed)
    fleet = [_random_meter(rng, number, days, intervals_minutes) for number in range(meters)]
    parts: list[list[str]] = [[] for _ in range(files)]
    counts = {"late": 0, "corrections": 0, "duplicates": 0}
    first_day = datetime(2023, 12, 4)
    for meter in fleet:
        for instant, kwh in _readings(rng, meter):
            due = min(files - 1, (instant - first_day).days * files // days)
            place = due
            if rng.random() < 0.02:
                place = rng.randrange(due, files)
                counts["late"] += place > due
            line = _line(meter, instant, kwh, rng)
            parts[place].append(line)
            if rng.random() < 0.01:
                parts[rng.randrange(place, files)].append(line)
                counts["duplicates"] += 1
            if rng.random() < 0.01:
                parts[rng.randrange(place, files)].append(_line(meter, instant, kwh * rng.uniform(0, 3), rng))
                counts["corrections"] += 1
    parts = [part for part in parts if part]
    if rng.random() < 0.5:
        rng.shuffle(parts)
    return Feed(tuple(tuple(part) for part in parts), **counts)


def _random_meter(rng: random.Random, number: int, days: int, intervals_minutes: tuple[int, ...]) -> _Meter:
    start = rng.choice([0, 0, rng.randrange(max(1, days // 2))])
    meter = _Meter(
        name=f"m{number}" if number else "m 0, ü",  # a name that needs quoting
        first=datetime(2023, 12, 4) + timedelta(days=start, hours=rng.choice([0, 0, 7])),
        interval=timedelta(minutes=rng.choice(intervals_minutes)),
        days=rng.choice([days - start, max(1, (days - start) // 2)]),
        level_kwh=rng.choice([0.0, 0.02, 0.4, 3.0, 8.0]),
    )
    if rng.random() < 0.5:
        silent = rng.randrange(meter.days)
        meter.silent_days = set(range(silent, silent + rng.randrange(1, 12)))
    return meter


def _readings(rng: random.Random, meter: _Meter) -> list[tuple[datetime, float]]:
    found = []
    instant, end = meter.first, meter.first + timedelta(days=meter.days)
    while instant < end:
        silent = (instant - meter.first).days in meter.silent_days
        if not silent and rng.random() > 0.01:
            shape = 1 + (instant.hour in range(18, 22)) + rng.random()
            spike = 4 if rng.random() < 0.001 else 1
            found.append((instant, meter.level_kwh * shape * spike))
        instant += meter.interval
    return found


def _line(meter: _Meter, instant: datetime, kwh: float, rng: random.Random) -> str:
    consumption = "" if rng.random() < 0.005 else f"{kwh:.4f}"
    voltage = f"{rng.uniform(215, 240):.1f}" if rng.random() < 0.9 else ""
    name = f'"{meter.name}"' if "," in meter.name else meter.name
    return f"{name},{instant.isoformat(sep=' ')},{consumption},{voltage},{rng.uniform(5, 35):.2f}\n"
