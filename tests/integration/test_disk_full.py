"""A full disk: an error that says so, nothing of the load kept, and a database that goes on."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from energy_iot.errors import StorageError, StoreUnavailableError
from energy_iot.pipeline import RunOptions, run_steps
from energy_iot.settings import Settings
from energy_iot.storage.embedded_postgres import has_reserve
from energy_iot.storage.postgres import Postgres, open_postgres

pytestmark = pytest.mark.heavy

HEADER = "meter_id,timestamp,consumption_kwh\n"
COUNTS = (
    "select (select count(*) from raw_data.meter_readings), (select count(*) from raw_data.ingested_files), "
    "(select count(*) from raw_data.changes)"
)


def _mounted(folder: Path, size: str) -> Path:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small filesystem cannot be mounted here: {done.stderr.strip()}")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small filesystem")
    folder = _mounted(tmp_path / "disk", "200m")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    """What an administrator does about a full disk."""
    subprocess.run(["mount", "-o", "remount,size=2g", str(disk)], check=True)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("files") / "few.csv"
    file.write_text(HEADER + "".join(f"m0,2024-01-01 {hour:02}:00:00,0.5\n" for hour in range(24)))
    return file


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million readings: about 100 MB in PostgreSQL, and as much in its log."""
    file, start = tmp_path_factory.mktemp("files") / "many.csv", datetime(2020, 1, 1)
    stamps = [f"{start + timedelta(minutes=30 * number)}" for number in range(50_000)]
    with file.open("w") as opened:
        opened.write(HEADER)
        for meter in range(20):
            opened.writelines(f"meter_{meter:06},{stamp},0.{meter:02}7\n" for stamp in stamps)
    return file


def load(settings: Settings, file: Path) -> int:
    return run_steps(settings, RunOptions(files=(file,)), ("ingest_data",)).steps[-1].report.rows_out


def counts(postgres: Postgres) -> tuple[int, int, int]:
    with postgres.connect() as connection:
        row = connection.execute(COUNTS).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def check_out_of_space(settings: Settings, file: Path) -> None:
    with pytest.raises(StorageError, match="ran out of space") as caught:
        load(settings, file)
    assert caught.value.exit_code == 5
    assert not isinstance(caught.value, StoreUnavailableError)  # trying again would not help
    assert "free space" in caught.value.fix


def test_a_load_that_does_not_fit_leaves_everything_as_it_was(small_disk: Path, few: Path, many: Path) -> None:
    settings = Settings(home=small_disk / "home")
    assert load(settings, few) == 24
    before = shutil.disk_usage(small_disk).free
    check_out_of_space(settings, many)
    with open_postgres(settings) as postgres:
        assert counts(postgres) == (24, 1, 1)
    # the space of what failed is given back, but for what the log keeps
    assert shutil.disk_usage(small_disk).free > before - 70e6
    other = few.with_name("other.csv")
    other.write_text(few.read_text().replace("m0", "m1"))
    assert load(settings, other) == 24
    enlarge(small_disk)
    assert load(settings, many) == 1_000_000
    with open_postgres(settings) as postgres:
        assert counts(postgres) == (1_000_048, 3, 3)


def test_a_disk_filled_by_others_in_the_middle_of_it(small_disk: Path, few: Path, many: Path) -> None:
    settings = Settings(home=small_disk / "home")
    load(settings, few)
    filler = small_disk / "filler"
    with open_postgres(settings):
        assert has_reserve(settings.home / "postgres")
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 6 * 2**20))
        check_out_of_space(settings, many)
    with open_postgres(settings) as postgres:  # on what was kept for it
        assert counts(postgres) == (24, 1, 1)
    filler.unlink()
    enlarge(small_disk)
    assert load(settings, many) == 1_000_000


def test_a_full_disk_of_the_log_stops_the_server_and_loses_nothing(
    small_disk: Path, tmp_path: Path, few: Path, many: Path
) -> None:
    """The write-ahead log alone on the small disk: PostgreSQL ends itself, and cannot start without space."""
    settings = Settings(home=tmp_path / "home")
    load(settings, few)
    wal = settings.home / "postgres" / "pg_wal"
    owner = wal.stat()
    shutil.move(wal, small_disk / "pg_wal")
    wal.symlink_to(small_disk / "pg_wal")
    for path in ((small_disk / "pg_wal"), *(small_disk / "pg_wal").rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    with open_postgres(settings):
        (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 6 * 2**20))
        check_out_of_space(settings, many)
    with pytest.raises(StorageError, match="ran out of space") as caught, open_postgres(settings):
        pass
    assert "free space" in caught.value.fix
    (small_disk / "filler").unlink()
    enlarge(small_disk)
    with open_postgres(settings) as postgres:
        assert counts(postgres) == (24, 1, 1)
    assert load(settings, many) == 1_000_000
