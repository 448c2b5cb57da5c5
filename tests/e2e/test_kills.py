"""kill -9 at random moments in every step, of the pipeline or of its PostgreSQL: nothing is lost, nothing doubled."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

from energy_iot.pipeline import ALL_STEPS
from energy_iot.settings import Settings, load_settings
from energy_iot.storage.postgres import open_postgres
from tests.random_fleet import random_feed
from tests.stored_tables import derived_tables, differences

SEED = 20
HISTORY_PARTS = (
    60  # of the feed, loaded at first (so much that no growth asks for another model); the others one by one
)
# a killed COPY leaves a gap in the ids, and a killed training one in the versions
NUMBERS = frozenset({"reading_id", "model_version"})
LONGEST_DELAY_SECONDS = 2.0
SHORT_DELAY_SECONDS = 0.2  # a day's file is ingested in about that
RECOVERY_SECONDS = 4.0  # a run whose server was killed goes on, and is killed itself while it does


def energy_iot(home: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "energy_iot", "--home", str(home), *map(str, arguments)]


class Run:
    """A pipeline in a process of its own, whose log lines can be waited for."""

    def __init__(self, home: Path, files: list[Path]) -> None:
        self._process = subprocess.Popen(
            energy_iot(home, "run", *files), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._home = home
        self._lines: Queue[str | None] = Queue()
        self.said: list[str] = []
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def wait_for_step(self, step: str) -> bool:
        """Whether the step began; False when the run ended without."""
        try:
            while (line := self._lines.get(timeout=120)) is not None:
                if line.startswith(f"{step}: ") and ": done in" not in line:
                    return True
        except Empty:
            pytest.fail(f"no {step} within two minutes:\n{''.join(self.said)}")
        return False

    def current_step(self) -> str:
        begun = [line.split(":")[0] for line in self.said if ": done in" not in line]
        return next((name for name in reversed(begun) if name in ALL_STEPS), "start")

    def ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill_pipeline(self) -> bool:
        self._process.kill()
        return self._process.wait() == -signal.SIGKILL

    def kill_postgres(self) -> bool:
        try:
            os.kill(int((self._home / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        except (FileNotFoundError, IndexError, ProcessLookupError):
            return False  # not up yet, or down already
        return True

    def finish(self) -> int:
        code = self._process.wait(timeout=300)
        self._reader.join()
        return code


KILLS: dict[str, Callable[[Run], bool]] = {"pipeline": Run.kill_pipeline, "postgres": Run.kill_postgres}


@pytest.mark.heavy
def test_killed_at_random_moments(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    rng = random.Random(SEED)
    # the first file until it is all through; then a new one each time, so that every step has work to be killed in;
    # the last round kills as the step begins: some take less time than any delay drawn
    schedule = [("pipeline", step, 1, LONGEST_DELAY_SECONDS) for step in ALL_STEPS]
    schedule += [
        (target, step, 2 + number, longest)
        for number, ((target, longest), step) in enumerate(
            product(
                [("postgres", LONGEST_DELAY_SECONDS), ("postgres", SHORT_DELAY_SECONDS), ("pipeline", 0.0)], ALL_STEPS
            )
        )
    ]
    feed = random_feed(
        SEED, meters=12, days=90, files=HISTORY_PARTS + len(schedule) - len(ALL_STEPS), intervals_minutes=(30,)
    )
    history = tuple(chain.from_iterable(feed.files[:HISTORY_PARTS]))
    files = replace(feed, files=(history, *feed.files[HISTORY_PARTS:])).write(tmp_path / "feed")
    home, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    kills: list[tuple[str, str]] = []
    for target, step, given, longest in schedule:
        run = Run(home, files[:given])  # what an earlier run did not come to load is loaded first
        if run.wait_for_step(step) and not run.ended_within(rng.uniform(0, longest)) and KILLS[target](run):
            kills.append((target, run.current_step()))
        if target == "postgres" and not run.ended_within(rng.uniform(0, RECOVERY_SECONDS)) and run.kill_pipeline():
            kills.append(("pipeline, after its postgres", run.current_step()))
        # a run whose server was killed ends well after trying again, or says that the store went away
        assert run.finish() in {0, 5, -signal.SIGKILL}, "".join(run.said)
        assert "Traceback" not in "".join(run.said)
    for arguments in ([home, "run", *files], [undisturbed, "run", files[0]], [undisturbed, "run", *files]):
        done = subprocess.run(energy_iot(*arguments), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    record_property("kills", kills)
    assert len(kills) >= 30
    assert {step for _, step in kills} == set(ALL_STEPS)

    assert raw_counts(load_settings(home=home)) == raw_counts(load_settings(home=undisturbed))
    left, right = (derived_tables(load_settings(home=one)) for one in (home, undisturbed))
    assert differences(left, right, leave_out=NUMBERS) == {}


def raw_counts(settings: Settings) -> list[tuple[object, ...]]:
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        return connection.execute(
            "select file_name, lines_read, readings_loaded, readings_rejected, count(*) "
            "from raw_data.ingested_files join raw_data.meter_readings using (file_id) group by 1, 2, 3, 4 order by 1"
        ).fetchall()
