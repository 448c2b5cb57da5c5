"""One fleet from its seed to scores: generated, its truth put aside, run through the whole pipeline as a user would."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import polars as pl

from energy_iot.errors import ModelError
from energy_iot.ml.evaluation.baselines import BASELINES, Scores
from energy_iot.ml.evaluation.network import TransformerMonth, read_transformers
from energy_iot.ml.evaluation.protocol import TAPS_SHARE, THEFT_SHARE, FleetPlan
from energy_iot.ml.evaluation.truth import FleetTruth, read_truth
from energy_iot.reporting.progress import Progress
from energy_iot.settings import ENV_PREFIX, Settings
from energy_iot.simulation.fleet import generate
from energy_iot.simulation.theft import parse_theft_kinds
from energy_iot.simulation.writer import ANOMALIES_FILE, TRUTH_FILE
from energy_iot.storage.postgres import open_postgres

SUSPICION: Final = "suspicion score"
PERFECT: Final = "perfect list"
KEPT_BACK: Final = (TRUTH_FILE, ANOMALIES_FILE)
TOLD_LINES: Final = 12
PATIENCE_SECONDS: Final = 20


@dataclass(frozen=True)
class FleetResult:
    """What is known of a fleet after its run.

    Attributes:
        plan: What was asked for.
        truth: What is true of it.
        scores: By ranking, then by meter; `SUSPICION` first, `PERFECT` last.
        transformers: In the month that is judged.
        readings: Rows of the readings' file.
        seconds: Of generating, of the whole run, and of the baselines.
    """

    plan: FleetPlan
    truth: FleetTruth
    scores: Mapping[str, Scores]
    transformers: tuple[TransformerMonth, ...]
    readings: int
    seconds: Mapping[str, float]


def run_fleet(plan: FleetPlan, folder: Path, progress: Progress) -> FleetResult:
    """Generate a fleet, run the pipeline on it, and rank its meters in every way.

    The settings are the program's own: variables and .env files of the caller would make another detector. The truth is
    moved out of the pipeline's reach before it starts.

    Args:
        plan: Which fleet.
        folder: Empty; holds files and home.
        progress: Told what is going on, never how well it goes: figures come at the end, all at once.

    Raises:
        ModelError: A command failed, or the ranking leaves meters out.
    """
    data, aside, home = folder / "data", folder / "aside", folder / "home"
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        progress.note(f"seed {plan.seed}: {what}")
        started = time.monotonic()
        yield
        seconds[what] = time.monotonic() - started

    with timed("generate"):
        files = generate(
            data,
            meters=plan.meters,
            days=plan.days,
            seed=plan.seed,
            interval_minutes=plan.interval_minutes,
            theft_share=THEFT_SHARE,
            theft_kinds=parse_theft_kinds(",".join(plan.kinds)),
            taps_share=TAPS_SHARE,
            progress=progress,
        )
    aside.mkdir()
    for name in KEPT_BACK:
        (data / name).rename(aside / name)
    with timed("run"):
        run_command(folder, home, "run", data)
    registry = pl.read_csv(files.meters, columns=["meter_id"], schema_overrides={"meter_id": pl.String})
    meter_ids = registry["meter_id"].unique().to_list()
    ranked = read_ranking(run_command(folder, home, "rank", "--top", len(meter_ids), "--format", "csv"))
    truth = read_truth(aside / TRUTH_FILE, meter_ids)
    refuse_unranked(ranked, truth, plan)
    with timed("baselines"), open_postgres(own_settings(home)) as postgres:
        simple = {baseline.name: baseline.rank(postgres) for baseline in BASELINES}
        transformers = tuple(read_transformers(postgres, truth.taps))
    scores = {SUSPICION: ranked} | simple | {PERFECT: truth.perfect_scores()}
    return FleetResult(plan, truth, scores, transformers, files.reading_count, seconds)


def own_settings(home: Path) -> Settings:
    """The embedded databases below `home`, whatever the caller's settings say."""
    return Settings(home=home, backend="embedded", postgres_dsn=None, clickhouse_url=None)


def run_command(folder: Path, home: Path, *arguments: object) -> bytes:
    """Run energy-iot in a process of its own; gives what it prints.

    Raises:
        ModelError: It failed; tells its last lines.
    """
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
    command = [sys.executable, "-m", "energy_iot", "--home", str(home), "--quiet", *map(str, arguments)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,  # a .env is looked for here
        env=environment,
    ) as process:
        try:
            output, errors = process.communicate()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):  # has reached it too
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE_SECONDS)
            process.terminate()  # an orderly end, so that its database server stops
            raise
    if process.returncode:
        told = "\n  ".join(errors.decode(errors="replace").strip().splitlines()[-TOLD_LINES:])
        raise ModelError(
            f"`energy-iot {' '.join(map(str, arguments))}` ended with exit code {process.returncode}:\n  {told}",
            fix="correct what it says and evaluate again; nothing was written",
        )
    return output


def read_ranking(printed: bytes) -> dict[str, float]:
    """Score by meter, out of what `energy-iot rank --format csv` printed.

    Raises:
        ModelError: It does not start with meter_id,score, or names a meter twice.
    """
    frame = pl.read_csv(BytesIO(printed), schema_overrides={"meter_id": pl.String, "score": pl.Float64})
    if frame.columns[:2] != ["meter_id", "score"] or frame["meter_id"].is_duplicated().any():
        raise ModelError(
            f"the ranking has columns {', '.join(frame.columns)} and {frame.height} rows",
            fix="`energy-iot rank --format csv` must print meter_id,score,... with each meter once",
        )
    return {meter: score for meter, score in frame.select("meter_id", "score").iter_rows() if score is not None}


def refuse_unranked(ranked: Scores, truth: FleetTruth, plan: FleetPlan) -> None:
    """Stop where meters are unknown or the list is empty; a meter left out counts as last, which is judgement enough.

    Raises:
        ModelError: No meter was ranked, or one that is not in the fleet.
    """
    strangers = set(ranked) - set(truth.meter_ids)
    if strangers or not ranked:
        raise ModelError(
            f"seed {plan.seed}: the ranking names {len(ranked)} meters, {len(strangers)} of them not in the fleet",
            fix="run `energy-iot rank` on the fleet and look at what it lists",
        )
