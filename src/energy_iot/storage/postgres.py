"""PostgreSQL behind one interface: embedded under the home folder, or a server by URL."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from energy_iot.errors import HomeInUseError, StorageError, StoreUnavailableError, UsageError
from energy_iot.settings import Settings
from energy_iot.storage.embedded_postgres import (
    RESERVE_SEGMENTS,
    SUPERUSER,
    full_disk_reason,
    has_reserve,
    log_file,
    make_reserve,
    release_reserve,
    running_server,
)
from energy_iot.storage.postgres_errors import CANNOT_CONNECT_NOW, DISK_FULL, storage_error
from energy_iot.storage.role_names import TRANSFORMER

APPLICATION_NAME: Final = "energy-iot"
SCHEMAS: Final = ("raw_data", "staging", "intermediate", "marts", "ml", "quality")
EMBEDDED_DATABASE: Final = "energy_iot"
MIGRATION_LOCK: Final = 4_771_001  # any constant: one migrator at a time
RUN_LOCK: Final = 4_771_002  # below 2^32: one run at a time, see run_lock.py

# libpq alone waits minutes for a server that does not answer, and hours for one that vanished; the address may differ
PATIENCE: Final = {
    "connect_timeout": "10",  # seconds, as the next two
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # ms
}

# what the embedded server's configuration says, for sessions on a server of somebody else
SESSION_OPTIONS: Final = "-c timezone=UTC -c datestyle=ISO"
CHECK_INTERVAL: Final = "client_connection_check_interval"  # ms: the statements of a killed run end within a second


log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)  # the connection string may hold a password
class Postgres:
    """Where the database is, and the ways into it that our libraries need.

    Attributes:
        conninfo: Connection string of libpq.
        data_dir: Folder of the embedded server.
        log_length: How long its log was: why it went away stands after that.
    """

    conninfo: str
    data_dir: Path | None = None
    log_length: int = 0

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection]:
        """A psycopg connection in UTC; commits when the block ends well, rolls back when it does not.

        Raises:
            StoreUnavailableError: The server cannot be reached, refuses, or went away.
            StorageError: It is full, or does not let us in; names the host, never the password.
        """
        with self.storage_errors(), self.open_connection(autocommit=autocommit) as connection:
            yield connection

    def open_connection(self, *, autocommit: bool = False) -> psycopg.Connection:
        """A psycopg connection in UTC, for whoever closes it; raises what `connect` raises."""
        try:
            return psycopg.connect(self.conninfo, autocommit=autocommit)
        except psycopg.OperationalError as error:
            raise self._connect_error(str(error)) from error

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the embedded server up while the block runs, started again if it was killed; others are up or not."""
        if self.data_dir is None:
            yield
            return
        with running_server(self.data_dir):
            yield

    @contextmanager
    def connect_arrow(self) -> Iterator[Any]:
        """An ADBC connection: reads and writes Arrow tables without a detour through rows; raises as `connect` does."""
        try:
            connection = adbc_driver_postgresql.dbapi.connect(self.uri)
        except adbc_driver_manager.Error as error:
            raise self._connect_error(str(error)) from error
        with self.storage_errors(), connection:
            yield connection

    @contextmanager
    def storage_errors(self) -> Iterator[None]:
        """Turn what drivers raise in the block into our errors, where it is no fault of a statement."""
        try:
            yield
        except (psycopg.Error, adbc_driver_manager.Error, OSError, pa.ArrowException) as error:
            if (told := self.storage_error(error)) is None:
                raise
            raise told from error

    def storage_error(self, error: BaseException) -> StorageError | None:
        """What a driver's error means; None for a faulty statement, and for what is none of PostgreSQL's."""
        streamed = isinstance(error, (OSError, pa.ArrowException))  # they keep the text only
        if streamed and not str(error).startswith("[libpq]"):
            return None
        operational = isinstance(error, (psycopg.OperationalError, adbc_driver_manager.OperationalError, OSError))
        return self._told(str(error), getattr(error, "sqlstate", None), operational=operational)

    @property
    def place(self) -> str:
        """Host, port and database; of the embedded server, the folder of its socket."""
        known = self.parameters
        if known.get("host", "").startswith("/"):
            return known["host"]
        return f"{known.get('host', 'localhost')}:{known.get('port', '5432')}/{known.get('dbname', '')}"

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of libpq: host, port, user, password, dbname, sslmode, options ..."""
        return {key: str(value) for key, value in conninfo_to_dict(self.conninfo).items() if value is not None}

    @property
    def uri(self) -> str:
        """URI for libpq, everything in its query part: a socket folder cannot stand where a host name does."""
        known = self.parameters
        return f"postgresql:///{quote(known.pop('dbname', ''))}?{urlencode(known, quote_via=quote)}"

    def _connect_error(self, text: str) -> StorageError:
        """A failure to connect carries no code, and a server speaks any language: ask it whether it is ready."""
        told = self._told(text, None, operational=True)
        if type(told) is StorageError and psycopg.pq.PGconn.ping(self.conninfo.encode()) == psycopg.pq.Ping.REJECT:
            told = self._told(text, CANNOT_CONNECT_NOW, operational=True)
        assert told is not None
        return told

    def _told(self, text: str, sqlstate: str | None, *, operational: bool) -> StorageError | None:
        password = self.parameters.get("password")
        told = storage_error(text, sqlstate, operational=operational, place=self.place, password=password)
        if self.data_dir is None or told is None:
            return told
        if isinstance(told, StoreUnavailableError) and (reason := full_disk_reason(self.data_dir, self.log_length)):
            told = storage_error(reason, DISK_FULL, operational=True, place=self.place, password=None)
            sqlstate = DISK_FULL
        if sqlstate == DISK_FULL:
            release_reserve(self.data_dir, RESERVE_SEGMENTS // 2)
        return told


@contextmanager
def open_postgres(settings: Settings) -> Iterator[Postgres]:
    """The database, running and with our schemas, while the block runs. Nested and parallel use is fine.

    Raises:
        StoreUnavailableError: It cannot be reached.
        StorageError: It cannot be started or does not let us in, or its schema is newer than this program.
    """
    if settings.postgres_dsn is not None:
        yield _migrated_server(settings.postgres_dsn.get_secret_value())
        return
    data_dir = settings.home / "postgres"
    with running_server(data_dir) as socket_dir:
        try:
            postgres = _prepare_embedded(data_dir, socket_dir)
        except StoreUnavailableError:  # it crashed at this moment
            with running_server(data_dir):
                postgres = _prepare_embedded(data_dir, socket_dir)
        yield postgres


def own_database_url(postgres: Postgres, name: str, given: SecretStr | None, variable: str) -> str:
    """URL, as SQLAlchemy takes it, of a database for another program's own use; made in the embedded server if need be.

    Args:
        postgres: Where the pipeline's tables are.
        name: Of the database.
        given: The URL that the settings name, which is then taken.
        variable: What to set where PostgreSQL is a server of one's own.

    Raises:
        UsageError: The settings name none, and the server is not the embedded one.
    """
    if given is not None:
        return given.get_secret_value()
    if postgres.data_dir is None:
        raise UsageError(
            f"on servers of your own {name} needs a database of its own",
            fix=f"make one, and set {variable}=postgresql+psycopg2://user:password@host/{name}",
        )
    _ensure_database(postgres, name)
    known = postgres.parameters
    return f"postgresql+psycopg2://{quote(known['user'])}@/{name}?host={quote(known['host'], safe='')}"


def _prepare_embedded(data_dir: Path, socket_dir: Path) -> Postgres:
    server = {"host": str(socket_dir), "user": SUPERUSER, "application_name": APPLICATION_NAME}
    _ensure_database(Postgres(make_conninfo(**server, dbname="postgres")), EMBEDDED_DATABASE)
    length = log_file(data_dir).stat().st_size
    postgres = Postgres(make_conninfo(**server, dbname=EMBEDDED_DATABASE), data_dir, length)
    if not has_reserve(data_dir):
        _give_space_back(postgres)
        make_reserve(data_dir)
    migrate(postgres)
    return postgres


def _give_space_back(postgres: Postgres) -> None:
    """After the disk was full: the rows of what failed still lie in the files."""
    try:
        with postgres.connect(autocommit=True) as connection:
            connection.execute("set lock_timeout = '2s'")  # somebody may be at work on a table
            for command in ("checkpoint", "vacuum", "checkpoint"):  # the first makes room in the log for the second
                connection.execute(command)
    except StorageError as error:
        log.warning("no space could be given back: %s", error.problem)


def _ensure_database(admin: Postgres, name: str) -> None:
    with admin.connect(autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
            # another process may be faster by a moment
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(f"create database {name}")


def settings_for_role(settings: Settings, role: str) -> Settings:
    """The settings with which a step acts in `role`; unchanged where the database has no roles of ours.

    Raises:
        StorageError: The server cannot be reached.
    """
    if settings.postgres_dsn is None:
        return settings  # one user, and a private socket
    dsn = settings.postgres_dsn.get_secret_value()
    with connect_server(dsn).connect() as connection:
        if not roles_own_schemas(connection):
            return settings
    return settings.model_copy(update={"postgres_dsn": SecretStr(_add_options(dsn, f"-c role={role}"))})


def roles_own_schemas(connection: psycopg.Connection) -> bool:
    """Whether `energy-iot init-db` has made the roles and given them the schemas."""
    row = connection.execute(
        "select pg_get_userbyid(nspowner) = %s from pg_namespace where nspname = 'staging'", (TRANSFORMER,)
    ).fetchone()
    return row is not None and bool(row[0])


@cache  # once in a process: each step opens the database several times
def _migrated_server(dsn: str) -> Postgres:
    postgres = connect_server(dsn)
    migrate(postgres)
    return postgres


@cache
def connect_server(dsn: str) -> Postgres:
    """The server at `dsn`, answering, with the session settings that embedded servers have by configuration.

    Raises:
        StoreUnavailableError: It cannot be reached.
        StorageError: It does not let us in, or `dsn` is no address.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise StorageError(
            "postgres_dsn is not a PostgreSQL address",
            fix="write it as postgresql://user:password@host:5432/database",
        ) from error
    defaults = {name: value for name, value in PATIENCE.items() if name not in given}
    dsn = make_conninfo(dsn, application_name=APPLICATION_NAME, **defaults)
    dsn = _add_options(dsn, SESSION_OPTIONS)
    postgres = Postgres(_add_options(dsn, f"-c {CHECK_INTERVAL}=1000"))
    try:
        postgres.open_connection().close()
    except StorageError as error:
        if CHECK_INTERVAL not in error.problem:
            raise
        postgres = Postgres(dsn)  # a server on Windows cannot look for its clients
        postgres.open_connection().close()
    return postgres


def _add_options(dsn: str, options: str) -> str:
    given = conninfo_to_dict(dsn).get("options") or ""
    return make_conninfo(dsn, options=f"{given} {options}".strip())


def migrate(postgres: Postgres, *, as_admin: bool = False) -> None:
    """Bring the schema to this program's version by numbered files, all in one transaction.

    Args:
        postgres: The database.
        as_admin: Also where roles own the schemas; whoever asks for it gives new tables to them.

    Raises:
        StorageError: The schema was made by a newer program, or is older and only `init-db` may change it.
        HomeInUseError: A run is at work on the older schema.
    """
    scripts = {
        int(match[1]): script
        for script in files("energy_iot.storage.migrations").iterdir()
        if (match := re.match(r"(\d{4})_\w+\.sql$", script.name))
    }
    with postgres.connect() as connection:
        current = _schema_version(connection)
        if current == max(scripts):
            return
        if current > max(scripts):
            raise StorageError(
                f"the database has schema version {current}, and this energy-iot knows {max(scripts)} at most",
                fix="upgrade energy-iot, or use another database (--home)",
            )
        if roles_own_schemas(connection) and not as_admin:
            raise StorageError(
                f"{postgres.place} has schema version {current}, and this energy-iot needs {max(scripts)}",
                fix="let its administrator run `energy-iot init-db`: with roles, only that changes the schema",
            )
    # a connection that has not looked for these tables yet: it would not look again, and miss what another one made
    with postgres.connect() as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        # another process may have been faster; at its end it lets go of its two locks one after the other
        current = _schema_version(connection)
        if current == max(scripts):
            return
        if connection.execute("select pg_try_advisory_xact_lock(%s)", (RUN_LOCK,)).fetchone() != (True,):
            raise HomeInUseError(
                f"{postgres.place} has schema version {current}, which cannot change while another command is at work",
                fix="let it end, and type the same command again",
            )
        connection.execute("create schema if not exists quality")
        connection.execute(
            "create table if not exists quality.schema_versions "
            "(version integer primary key, applied_at timestamp not null default (now() at time zone 'utc'))"
        )
        for version in sorted(number for number in scripts if number > current):
            connection.execute(scripts[version].read_bytes())
            connection.execute("insert into quality.schema_versions (version) values (%s)", (version,))


def _schema_version(connection: psycopg.Connection) -> int:
    row = connection.execute("select to_regclass('quality.schema_versions')").fetchone()
    if row is None or row[0] is None:
        return 0
    found = connection.execute("select coalesce(max(version), 0) from quality.schema_versions").fetchone()
    return int(found[0]) if found else 0
