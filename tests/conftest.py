"""Real engines for tests: one PostgreSQL server a session, a database and a home of its own for each test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from energy_iot.pipeline import RunContext, RunOptions, start_run
from energy_iot.settings import Settings
from energy_iot.storage.embedded_postgres import SUPERUSER, running_server
from energy_iot.storage.postgres import Postgres, open_postgres

# no deadline: machines are shared, and a slow example says nothing about the code
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the caller's variables nor a .env in the checkout may steer a test."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("ENERGY_IOT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """libpq parameters of a server that lives as long as the session."""
    with running_server(tmp_path_factory.mktemp("server") / "postgres") as socket_dir:
        yield {"host": str(socket_dir), "user": SUPERUSER}


@contextmanager
def new_database(server: dict[str, str]) -> Iterator[str]:
    """An empty database while the block runs; gives its libpq parameters as one text."""
    name = f"t_{uuid4().hex}"
    admin = make_conninfo(**server, dbname="postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        # the template's files are copied, not logged page by page: 0.04 s instead of 0.16 s on an idle machine
        connection.execute(f"create database {name} strategy file_copy")
    try:
        yield make_conninfo(**server, dbname=name)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def settings(postgres_server: dict[str, str], tmp_path: Path) -> Iterator[Settings]:
    """Settings with a home folder (embedded ClickHouse) and an empty PostgreSQL database of this test's own."""
    with new_database(postgres_server) as dsn:
        yield Settings(home=tmp_path / "home", postgres_dsn=dsn)


@pytest.fixture
def postgres(settings: Settings) -> Iterator[Postgres]:
    """The migrated database of `settings`."""
    with open_postgres(settings) as opened:
        yield opened


@pytest.fixture
def make_context(settings: Settings, postgres: Postgres) -> Callable[..., RunContext]:
    """Make the context of a new recorded run: make_context(files=(path,), score_threshold=0.7)."""

    def make(files: tuple[Path, ...] = (), source: str | None = None, **changed: object) -> RunContext:
        options = RunOptions(files=tuple(files), source=source)
        wanted = settings.model_copy(update=changed)
        return RunContext(wanted, start_run(wanted, options), options)

    return make
