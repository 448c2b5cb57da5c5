"""The rules that keep an evaluation honest, as code that refuses to break them.

Fleets for development and for evaluation have different seeds. Two kinds of theft are held out of all development:
nothing was tuned on them, and how they are found says what the detector does with a thief it never met. Evaluation
seeds that one version of the detector was judged on are spent for every later version, which may have learned from the
result: it is judged on fresh ones.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count, islice
from pathlib import Path
from typing import Final

from energy_iot.errors import UsageError
from energy_iot.settings import CONFIG_FILE, PROJECT_DIR, Settings

DEVELOPMENT_SEEDS: Final = range(1, 10)
FIRST_EVALUATION_SEED: Final = 101

DEVELOPMENT_KINDS: Final = (
    "constant_under_registration",
    "bypass_period",
    "average_substitution",
    "peak_hiding",
    "slow_decline",
    "direct_tap",
)
HELD_OUT_KINDS: Final = ("random_under_registration", "day_reversal")

THEFT_SHARE: Final = 0.08
"""Of the meters; with 15-30 % of the energy lost, of which technical losses are the smaller part, a cautious one."""

TAPS_SHARE: Final = 0.08
"""Of the transformers."""

SEEDS: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")

DEFAULT_FLEETS: Final = 5
DEFAULT_METERS: Final = 600
DEFAULT_DAYS: Final = 120
DEFAULT_INTERVAL_MINUTES: Final = 30

# What decides how meters are ranked; what generates and judges fleets is no part of it.
DETECTOR_FOLDERS: Final = ("src/energy_iot/ml", "dbt/models", "dbt/macros")
JUDGING: Final = ("src/energy_iot/ml/evaluation", "src/energy_iot/ml/evaluate.py")


class Purpose(StrEnum):
    """What a fleet is for."""

    DEVELOPMENT = "development"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class FleetPlan:
    """One fleet to judge the detector on.

    Attributes:
        purpose: What it is for.
        seed: Of the generator.
        meters: How many.
        days: Of readings.
        interval_minutes: Between two readings.
        kinds: Kinds of theft in it.

    Raises:
        UsageError: The seed or a kind is kept for the other purpose.
    """

    purpose: Purpose
    seed: int
    meters: int = DEFAULT_METERS
    days: int = DEFAULT_DAYS
    interval_minutes: int = DEFAULT_INTERVAL_MINUTES
    kinds: tuple[str, ...] = DEVELOPMENT_KINDS

    def __post_init__(self) -> None:
        _refuse_seed(self.purpose, self.seed)
        held_out = [kind for kind in self.kinds if kind in HELD_OUT_KINDS]
        if self.purpose is Purpose.DEVELOPMENT and held_out:
            raise UsageError(
                f"{', '.join(held_out)}: held out of development, so that evaluation shows how an unknown kind of "
                "theft is found",
                fix=f"choose from: {', '.join(DEVELOPMENT_KINDS)}",
            )


def _refuse_seed(purpose: Purpose, seed: int) -> None:
    first, last = DEVELOPMENT_SEEDS[0], DEVELOPMENT_SEEDS[-1]
    if purpose is Purpose.DEVELOPMENT and seed not in DEVELOPMENT_SEEDS:
        kept = " is kept for evaluation" if seed >= FIRST_EVALUATION_SEED else " is none of development"
        raise UsageError(f"seed {seed}{kept}", fix=f"choose seeds from {first} to {last} with --development")
    if purpose is Purpose.EVALUATION and seed < FIRST_EVALUATION_SEED:
        raise UsageError(
            f"seed {seed} is below {FIRST_EVALUATION_SEED}: figures on fleets like those of development would flatter",
            fix=f"choose seeds from {FIRST_EVALUATION_SEED}, or add --development",
        )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from numbers and ranges with commas between; none from an empty text.

    Raises:
        UsageError: It is something else.

    Example:
        >>> parse_seeds("101-103,110")
        (101, 102, 103, 110)
    """
    seeds: list[int] = []
    for part in filter(None, text.split(",")):
        match = SEEDS.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UsageError(f"'{part}' is no seed and no range of seeds", fix="type seeds as 101-105,110")
        seeds += range(first, last + 1)
    return tuple(seeds)


def plan_fleets(
    purpose: Purpose,
    *,
    seeds: Sequence[int] = (),
    fleets: int = DEFAULT_FLEETS,
    meters: int = DEFAULT_METERS,
    days: int = DEFAULT_DAYS,
    interval_minutes: int = DEFAULT_INTERVAL_MINUTES,
    detector: str,
    spent: Mapping[int, Iterable[str]],
    repeat: bool = False,
) -> tuple[FleetPlan, ...]:
    """The fleets to judge on.

    Args:
        purpose: What for; evaluation fleets have all kinds of theft, held-out ones included.
        seeds: Which; none takes the first `fleets` that are allowed.
        fleets: How many where no seeds are given.
        meters: Of each fleet.
        days: Of readings.
        interval_minutes: Between two readings.
        detector: `detector_fingerprint` of what is judged.
        spent: Detectors that were judged on each evaluation seed.
        repeat: Take seeds that another version was judged on all the same; the result is then no evaluation.

    Raises:
        UsageError: A seed is for another purpose, spent, or given twice; or there are not as many.
    """
    others = {seed for seed, judged in spent.items() if set(judged) - {detector}}
    if len(set(seeds)) < len(seeds):
        raise UsageError("a seed is given twice: the same fleet would count twice", fix="give each seed once")
    if purpose is Purpose.DEVELOPMENT:
        if not seeds and fleets > len(DEVELOPMENT_SEEDS):
            raise UsageError(
                f"there are {len(DEVELOPMENT_SEEDS)} development fleets", fix=f"--fleets {len(DEVELOPMENT_SEEDS)}"
            )
        chosen = tuple(seeds) or tuple(DEVELOPMENT_SEEDS[:fleets])
        kinds: tuple[str, ...] = DEVELOPMENT_KINDS
    else:
        fresh = (seed for seed in count(FIRST_EVALUATION_SEED) if repeat or seed not in others)
        chosen = tuple(seeds) or tuple(islice(fresh, fleets))
        kinds = DEVELOPMENT_KINDS + HELD_OUT_KINDS
        used = sorted(others & set(chosen))
        if used and not repeat:
            raise UsageError(
                f"{'seed' if len(used) == 1 else 'seeds'} {', '.join(map(str, used))}: another version of the detector "
                "was judged on it, and this one may have learned from the result",
                fix="leave --seeds out for fresh ones, or add --repeat and call the result no evaluation",
            )
    return tuple(FleetPlan(purpose, seed, meters, days, interval_minutes, kinds) for seed in chosen)


def detector_fingerprint(project: Path = PROJECT_DIR) -> str:
    """SHA-256 over all that decides how meters are ranked: code, SQL, and the defaults of settings."""
    judging = tuple(project / name for name in JUDGING)
    files = [
        path
        for folder in DETECTOR_FOLDERS
        for path in sorted((project / folder).rglob("*"))
        if path.suffix in {".py", ".sql"} and not any(path.is_relative_to(place) for place in judging)
    ]
    if not files:
        raise UsageError(
            f"{project} holds no code of the detector",
            fix="run `make evaluate` from a checkout of the project: an installed package alone cannot be evaluated",
        )
    settings = project / CONFIG_FILE.relative_to(PROJECT_DIR)
    digest = hashlib.sha256()
    for path in [*files, *([settings] if settings.exists() else [])]:
        digest.update(f"{path.relative_to(project)}\n".encode())
        digest.update(path.read_bytes())
    defaults = {name: str(field.default) for name, field in Settings.model_fields.items()}
    digest.update(json.dumps(defaults, sort_keys=True).encode())
    return digest.hexdigest()


def read_spent_seeds(file: Path) -> dict[int, list[str]]:
    """Which detectors were judged on each evaluation seed; none before the first evaluation.

    Raises:
        UsageError: The file cannot be read: without it, spent seeds would pass for fresh ones.
    """
    if not file.exists():
        return {}
    try:
        return {int(seed): list(judged) for seed, judged in json.loads(file.read_bytes()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{file} does not say which seeds are spent", fix="restore it from the project's history"
        ) from error


def write_spent_seeds(file: Path, spent: Mapping[int, Sequence[str]], seeds: Iterable[int], detector: str) -> None:
    """Write `spent`, and that this detector was judged on these seeds too."""
    judged = {seed: list(spent.get(seed, ())) for seed in sorted({*spent, *seeds})}
    for seed in seeds:
        if detector not in judged[seed]:
            judged[seed].append(detector)
    file.write_text(json.dumps(judged, indent=1) + "\n", encoding="utf-8")
