"""The evaluation of the inspection list: fleets whose truth is known, every ranking on each, one page of figures."""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from energy_iot import __version__
from energy_iot.errors import UsageError
from energy_iot.ml.evaluation.fleet_run import FleetResult, run_fleet
from energy_iot.ml.evaluation.protocol import (
    FleetPlan,
    Purpose,
    detector_fingerprint,
    plan_fleets,
    read_spent_seeds,
    write_spent_seeds,
)
from energy_iot.ml.evaluation.summary import Summary, summarise
from energy_iot.ml.evaluation.table import Facts, describe_fleet, write_page
from energy_iot.reporting.progress import Progress
from energy_iot.settings import PROJECT_DIR

PAGE: Final = PROJECT_DIR / "docs" / "evaluation.md"
SPENT_SEEDS: Final = PROJECT_DIR / "docs" / "evaluation_seeds.json"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        facts: When, with what, on what.
        summary: All figures.
        page: Where they were written, the record beside it with the ending .json; None for figures of development
            that nobody asked to keep.
    """

    facts: Facts
    summary: Summary
    page: Path | None


def evaluate(
    purpose: Purpose,
    *,
    seeds: Sequence[int] = (),
    fleets: int,
    meters: int,
    days: int,
    interval_minutes: int,
    repeat: bool = False,
    page: Path | None = None,
    command: str,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge the inspection list on generated fleets, and write the page and its record.

    Args:
        purpose: Development fleets, or evaluation fleets with held-out kinds of theft and fresh seeds.
        seeds: Which; none takes the first that are allowed.
        fleets: How many where no seeds are given.
        meters: Of each fleet.
        days: Of readings.
        interval_minutes: Between two readings.
        repeat: Take spent seeds all the same, and say so on the page.
        page: Where to write, a .md; None writes evaluations to docs/evaluation.md and nothing of development.
        command: What was typed, for the page.
        progress: Told what is going on.

    Raises:
        UsageError: The protocol forbids it (see `evaluation.protocol`).
        ModelError: The pipeline failed on a fleet, or a fleet has no thieves; nothing is written.
    """
    progress = progress or Progress()
    started, detector = time.monotonic(), detector_fingerprint()
    if purpose is Purpose.EVALUATION:
        page = page or PAGE
    elif page is not None and page.absolute() == PAGE:
        raise UsageError(
            "figures of development fleets do not belong on the page of the evaluation", fix="say --out ANOTHER.md"
        )
    spent = read_spent_seeds(SPENT_SEEDS)
    plans = plan_fleets(
        purpose,
        seeds=seeds,
        fleets=fleets,
        meters=meters,
        days=days,
        interval_minutes=interval_minutes,
        detector=detector,
        spent=spent,
        repeat=repeat,
    )
    results = [_run(plan, number, len(plans), progress) for number, plan in enumerate(plans, 1)]
    progress.note("figures and intervals")
    summary = summarise(results)
    facts = Facts(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        command=command,
        version=__version__,
        detector=detector,
        purpose=purpose,
        repeated=any(set(spent.get(plan.seed, ())) - {detector} for plan in plans),
        seconds=round(time.monotonic() - started, 1),
        processors=os.cpu_count() or 1,
        fleets=tuple(describe_fleet(result) for result in results),
    )
    if purpose is Purpose.EVALUATION:
        write_spent_seeds(SPENT_SEEDS, spent, [plan.seed for plan in plans], detector)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        record = {"facts": facts.to_json(), "summary": summary.to_json()}
        page.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        page.write_text(write_page(facts, summary), encoding="utf-8")
    return Evaluation(facts, summary, page)


def _run(plan: FleetPlan, number: int, count: int, progress: Progress) -> FleetResult:
    progress.note(f"fleet {number} of {count}: seed {plan.seed}, {plan.meters:,} meters, {plan.days} days")
    with tempfile.TemporaryDirectory(prefix="energy-iot-evaluate-") as folder:
        return run_fleet(plan, Path(folder), progress)
