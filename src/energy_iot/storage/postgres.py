"""PostgreSQL behind one interface: embedded under the home folder, or a server by URL."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode

import adbc_driver_postgresql.dbapi
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from energy_iot.errors import StorageError
from energy_iot.settings import Settings
from energy_iot.storage.embedded_postgres import SUPERUSER, running_server

EMBEDDED_DATABASE: Final = "energy_iot"
MIGRATION_LOCK: Final = 4_771_001  # any constant: one migrator at a time


@dataclass(frozen=True, repr=False)  # the connection string may hold a password
class Postgres:
    """Where the database is, and the ways into it that our libraries need."""

    conninfo: str

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection]:
        """A psycopg connection in UTC; commits when the block ends well, rolls back when it does not.

        Raises:
            StorageError: The server refuses, cannot be reached, or went away; names the host, never the password.
        """
        try:
            with psycopg.connect(self.conninfo, autocommit=autocommit, application_name="energy-iot") as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise self.unreachable(error) from error

    @contextmanager
    def connect_arrow(self) -> Iterator[Any]:
        """An ADBC connection: reads and writes Arrow tables without a detour through rows."""
        try:
            with adbc_driver_postgresql.dbapi.connect(self.uri) as connection:
                yield connection
        except adbc_driver_postgresql.dbapi.OperationalError as error:
            raise self.unreachable(error) from error

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of libpq: host, port, user, password, dbname, sslmode ..."""
        return {key: str(value) for key, value in conninfo_to_dict(self.conninfo).items() if value is not None}

    @property
    def uri(self) -> str:
        """URI for libpq, everything in its query part: a socket folder cannot stand where a host name does."""
        known = self.parameters
        return f"postgresql:///{quote(known.pop('dbname', ''))}?{urlencode(known, quote_via=quote)}"

    def unreachable(self, error: Exception) -> StorageError:
        """An error that names host and reason, and no password."""
        known = self.parameters
        where = f"{known.get('host', 'localhost')}:{known.get('port', '5432')}/{known.get('dbname', '')}"
        reason = str(error).strip().splitlines()
        password = known.get("password")
        text = (reason[-1] if reason else type(error).__name__).replace(password or "\0", "***")
        return StorageError(
            f"PostgreSQL at {where}: {text}",
            fix="check that it runs and accepts this user; `energy-iot doctor` tells more",
        )


@contextmanager
def open_postgres(settings: Settings) -> Iterator[Postgres]:
    """The database, running and with our schemas, while the block runs. Nested and parallel use is fine.

    Raises:
        StorageError: It cannot be started or reached, or its schema is newer than this program.
    """
    if settings.postgres_dsn is not None:
        try:
            conninfo = make_conninfo(settings.postgres_dsn.get_secret_value())
        except psycopg.ProgrammingError as error:
            raise StorageError(
                "postgres_dsn is not a PostgreSQL address",
                fix="write it as postgresql://user:password@host:5432/database",
            ) from error
        postgres = Postgres(conninfo)
        migrate(postgres)
        yield postgres
        return
    with running_server(settings.home / "postgres") as socket_dir:
        server = {"host": str(socket_dir), "user": SUPERUSER}
        _ensure_database(Postgres(make_conninfo(**server, dbname="postgres")), EMBEDDED_DATABASE)
        postgres = Postgres(make_conninfo(**server, dbname=EMBEDDED_DATABASE))
        migrate(postgres)
        yield postgres


def _ensure_database(admin: Postgres, name: str) -> None:
    with admin.connect(autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
            connection.execute(f"create database {name}")


def migrate(postgres: Postgres) -> None:
    """Bring the schema to this program's version, each numbered file in one transaction.

    Raises:
        StorageError: The schema was made by a newer program.
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
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        connection.execute("create schema if not exists quality")
        connection.execute(
            "create table if not exists quality.schema_versions "
            "(version integer primary key, applied_at timestamp not null default (now() at time zone 'utc'))"
        )
        current = _schema_version(connection)  # another process may have been faster
        for version in sorted(number for number in scripts if number > current):
            connection.execute(scripts[version].read_bytes())
            connection.execute("insert into quality.schema_versions (version) values (%s)", (version,))


def _schema_version(connection: psycopg.Connection) -> int:
    row = connection.execute("select to_regclass('quality.schema_versions')").fetchone()
    if row is None or row[0] is None:
        return 0
    found = connection.execute("select coalesce(max(version), 0) from quality.schema_versions").fetchone()
    return int(found[0]) if found else 0
