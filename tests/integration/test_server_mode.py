"""PostgreSQL over TCP with passwords, TLS and roles: least privilege, and what its errors become."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from energy_iot.doctor import examine
from energy_iot.errors import StorageError, StoreUnavailableError, UsageError
from energy_iot.pipeline import ALL_STEPS, RunOptions, run_steps
from energy_iot.reporting.progress import Progress
from energy_iot.settings import Settings
from energy_iot.simulation.fleet import generate
from energy_iot.storage.postgres import SCHEMAS, Postgres, connect_server, open_postgres, settings_for_role
from energy_iot.storage.role_names import LOADER, READER, TRANSFORMER
from energy_iot.storage.roles import OWNERS, initialise_database
from energy_iot.storage.run_lock import hold_run_lock, lock_holder
from energy_iot.transformation.dbt import run_dbt
from tests.postgres_server import TcpServer, missing, running_tcp_server

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.xdist_group("server_mode"),  # one server for all of them
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpServer]:
    with running_tcp_server(tmp_path_factory.mktemp("tcp")) as running:
        yield running


def query(postgres: Postgres, text: str) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(text).fetchall()


@dataclass
class Database:
    """A database with roles, and users who log in to it."""

    server: TcpServer
    name: str
    settings: Settings

    def user(self, *roles: str) -> Settings:
        """The settings of a new user in these roles."""
        name = f"u_{uuid4().hex}"
        password = self.server.create_user(name, *roles)
        return self.settings.model_copy(
            update={"postgres_dsn": SecretStr(self.server.dsn(self.name, name, password)), "postgres_admin_dsn": None}
        )


@pytest.fixture
def empty_database(server: TcpServer, tmp_path: Path) -> Iterator[Database]:
    """An empty database whose pipeline user can do nothing yet."""
    name, user = f"d_{uuid4().hex}", f"u_{uuid4().hex}"
    server.execute("create database {}", name)
    password = server.create_user(user)
    yield Database(
        server,
        name,
        Settings(
            home=tmp_path / "home",
            postgres_dsn=server.dsn(name, user, password),
            postgres_admin_dsn=server.dsn(name),
        ),
    )
    server.execute("drop database {} with (force)", name)


@pytest.fixture
def database(empty_database: Database) -> Database:
    """The same with roles, and its user in them."""
    initialise_database(empty_database.settings)
    return empty_database


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    file = tmp_path / "readings.csv"
    file.write_text(
        "meter_id,timestamp,consumption_kwh\n"
        + "".join(f"m1,2024-01-{day:02} {hour:02}:00:00,0.{hour + 10}\n" for day in (1, 2) for hour in range(24))
    )
    return file


def all_tables(settings: Settings) -> list[str]:
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        rows = connection.execute(
            "select schemaname || '.' || tablename from pg_tables where schemaname = any(%s) order by 1",
            (list(SCHEMAS),),
        ).fetchall()
    return [name for (name,) in rows]


def is_denied(postgres: Postgres, statement: str, *names: str) -> bool:
    """Whether the server refuses the statement for want of rights (nothing is kept of it otherwise)."""
    try:
        with postgres.connect() as connection:
            connection.execute(sql.SQL(statement).format(*(sql.Identifier(*name.split(".")) for name in names)))
            connection.rollback()
    except StorageError as error:
        if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            raise
        return True
    return False


def run_step_in_role(settings: Settings, role: str, statement: str) -> None:
    with open_postgres(settings_for_role(settings, role)) as postgres, postgres.connect() as connection:
        connection.execute(statement)


# --- roles ----------------------------------------------------------------------------------------------------------


def test_initialising_again_changes_nothing(database: Database) -> None:
    def rights() -> list[object]:
        with psycopg.connect(database.server.dsn(database.name)) as connection:
            return connection.execute(
                "select relname, relacl::text, pg_get_userbyid(relowner) from pg_class "
                "where relnamespace::regnamespace::text = any(%(ours)s) "
                "union all select nspname, nspacl::text, pg_get_userbyid(nspowner) from pg_namespace "
                "where nspname = any(%(ours)s) "
                "union all select defaclrole::text, defaclacl::text, '' from pg_default_acl order by 1, 2",
                {"ours": list(SCHEMAS)},
            ).fetchall()

    before = rights()
    assert len(before) > len(SCHEMAS)
    initialise_database(database.settings)
    assert rights() == before


def test_the_reader_reads_everything_and_writes_nothing(database: Database) -> None:
    with open_postgres(database.user(READER)) as postgres:
        tables = all_tables(database.settings)
        assert {name.split(".")[0] for name in tables} >= {"raw_data", "ml", "quality"}
        for table in tables:
            assert not is_denied(postgres, "select * from {}", table)
            for statement in ("insert into {} default values", "delete from {}", "truncate {}", "drop table {}"):
                assert is_denied(postgres, statement, table), f"{statement} {table}"
        assert is_denied(postgres, "update {} set meter_id = 'x'", "raw_data.meter_readings")
        for schema in (*SCHEMAS, "public"):
            assert is_denied(postgres, "create table {} (a integer)", f"{schema}.mine")
        assert is_denied(postgres, "create schema {}", "mine")
        assert is_denied(postgres, "set role {}", LOADER)


def test_the_loader_sees_nothing_derived(database: Database) -> None:
    run_step_in_role(database.settings, TRANSFORMER, "create table marts.figures (a integer)")
    run_step_in_role(database.settings, TRANSFORMER, "create table staging.figures (a integer)")
    with open_postgres(database.user(LOADER)) as postgres:
        tables = all_tables(database.settings)
        for table in tables:
            schema = table.split(".")[0]
            if schema in ("staging", "intermediate", "marts", "ml"):
                assert is_denied(postgres, "select * from {}", table), table
            elif schema == "raw_data":
                assert not is_denied(postgres, "select * from {}", table), table
        for schema in set(SCHEMAS) - {"raw_data"}:
            assert is_denied(postgres, "create table {} (a integer)", f"{schema}.mine")
        assert is_denied(postgres, "delete from {}", "quality.derived_states")


def test_a_user_who_is_only_loader_can_load(database: Database, readings: Path) -> None:
    settings = database.user(LOADER)
    summary = run_steps(settings, RunOptions(files=(readings,)), ("check_source", "ingest_data"))
    assert summary.steps[-1].report.rows_out == 48
    with psycopg.connect(database.server.dsn(database.name)) as connection:
        assert connection.execute("select count(*), min(timestamp)::text from raw_data.meter_readings").fetchone() == (
            48,
            "01/01/2024 00:00:00",  # as this server writes dates
        )


def test_the_transformer_cannot_write_raw_data(database: Database) -> None:
    followed = {"raw_data.changed_days", "raw_data.changed_node_days"}  # days that all have followed are removed
    with open_postgres(database.user(TRANSFORMER)) as postgres:
        for table in all_tables(database.settings):
            schema = table.split(".")[0]
            if schema == "raw_data":
                assert not is_denied(postgres, "select * from {}", table)
                assert is_denied(postgres, "insert into {} default values", table)
                assert is_denied(postgres, "delete from {}", table) == (table not in followed)
                assert is_denied(postgres, "truncate {}", table)
            else:
                assert not is_denied(postgres, "delete from {}", table)
        assert is_denied(postgres, "create table {} (a integer)", "raw_data.mine")


def test_what_the_transformer_makes_later_is_for_the_reader_and_not_the_loader(database: Database) -> None:
    settings = database.user(LOADER, TRANSFORMER)
    for schema in ("staging", "intermediate", "marts", "ml"):
        run_step_in_role(settings, TRANSFORMER, f"create table {schema}.later as select 1 as a")
    with open_postgres(database.user(READER)) as reader, open_postgres(database.user(LOADER)) as loader:
        for schema in ("staging", "intermediate", "marts", "ml"):
            assert not is_denied(reader, "select * from {}", f"{schema}.later")
            assert is_denied(reader, "delete from {}", f"{schema}.later")
            assert is_denied(loader, "select * from {}", f"{schema}.later")


def test_a_step_acts_in_its_role_by_every_driver(database: Database) -> None:
    settings = settings_for_role(database.settings, LOADER)
    with open_postgres(settings) as postgres:
        query = "select current_user::text as who, current_setting('timezone') as zone"
        with postgres.connect() as connection:
            assert connection.execute(query).fetchone() == (LOADER, "UTC")
        with postgres.connect_arrow() as connection, connection.cursor() as cursor:
            cursor.execute(query)
            assert cursor.fetch_arrow_table().to_pylist() == [{"who": LOADER, "zone": "UTC"}]


def test_a_user_outside_the_role_is_told_what_to_type(database: Database) -> None:
    settings = settings_for_role(database.user(READER), LOADER)
    with pytest.raises(StorageError, match="permission denied to set role") as caught, open_postgres(settings):
        pass
    assert "init-db" in caught.value.fix


def test_without_roles_a_step_acts_as_the_user(empty_database: Database) -> None:
    settings = empty_database.settings.model_copy(
        update={"postgres_dsn": empty_database.settings.postgres_admin_dsn, "postgres_admin_dsn": None}
    )
    with open_postgres(settings):
        assert settings_for_role(settings, LOADER) is settings


def test_a_user_who_may_not_make_schemas_is_told_so(empty_database: Database) -> None:
    with pytest.raises(StorageError, match="permission denied") as caught, open_postgres(empty_database.settings):
        pass
    assert "init-db" in caught.value.fix


def test_an_older_schema_with_roles_is_upgraded_by_the_administrator_only(database: Database) -> None:
    dsn = database.server.dsn(database.name)
    with psycopg.connect(dsn) as connection:
        connection.execute("delete from quality.schema_versions where version > 1")
    with pytest.raises(StorageError, match="schema version 1") as caught, open_postgres(database.settings):
        pass
    assert "energy-iot init-db" in caught.value.fix


def test_readers_and_users_are_made_members(empty_database: Database) -> None:
    server = empty_database.server
    names = [f"u_{uuid4().hex}" for _ in range(2)]
    for name in names:
        server.create_user(name)
    made = initialise_database(empty_database.settings, users=names[:1], readers=names[1:])
    assert [(member.user, member.roles) for member in made[1:]] == [
        (names[0], (LOADER, TRANSFORMER)),
        (names[1], (READER,)),
    ]
    with psycopg.connect(server.dsn("postgres")) as connection:
        held = connection.execute(
            "select pg_has_role(%s, %s, 'usage'), pg_has_role(%s, %s, 'usage')", (names[0], LOADER, names[1], LOADER)
        ).fetchone()
    assert held == (True, False)


def test_an_unknown_user_is_told_before_anything_is_made(empty_database: Database) -> None:
    with pytest.raises(StorageError, match="no user nobody_of_that_name") as caught:
        initialise_database(empty_database.settings, readers=("nobody_of_that_name",))
    assert "create role nobody_of_that_name" in caught.value.fix
    with psycopg.connect(empty_database.server.dsn(empty_database.name)) as connection:
        assert connection.execute("select to_regnamespace('quality')").fetchone() == (None,)


def test_the_embedded_database_has_no_roles(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings_for_role(settings, LOADER) is settings
    with pytest.raises(UsageError, match="embedded"):
        initialise_database(settings)


def test_an_administrator_need_not_be_superuser(server: TcpServer, empty_database: Database) -> None:
    name = f"u_{uuid4().hex}"
    password = server.create_user(name)
    server.execute("alter role {} createrole", name)
    server.execute("alter database {} owner to {}", empty_database.name, name)
    settings = empty_database.settings.model_copy(
        update={"postgres_admin_dsn": SecretStr(server.dsn(empty_database.name, name, password))}
    )
    initialise_database(settings)
    run_step_in_role(settings, TRANSFORMER, "create table marts.figures (a integer)")


# --- TLS and addresses ----------------------------------------------------------------------------------------------


def connect_both_ways(settings: Settings) -> tuple[Callable[[], object], Callable[[], object]]:
    """Whether the session is encrypted, by psycopg and by ADBC."""
    assert settings.postgres_dsn is not None
    postgres = Postgres(settings.postgres_dsn.get_secret_value())
    query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"

    def by_psycopg() -> object:
        with postgres.connect() as connection:
            return connection.execute(query).fetchone()

    def by_adbc() -> object:
        with postgres.connect_arrow() as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()

    return by_psycopg, by_adbc


def test_tls_reaches_both_drivers(database: Database) -> None:
    for connect in connect_both_ways(database.settings):
        assert connect() == (True,), connect.__name__


def test_a_server_of_another_authority_is_refused(database: Database) -> None:
    dsn = database.server.dsn(database.name, sslrootcert=database.server.other_ca_file)
    for connect in connect_both_ways(database.settings.model_copy(update={"postgres_dsn": SecretStr(dsn)})):
        with pytest.raises(StorageError, match="certificate verify failed") as caught:
            connect()
        assert not isinstance(caught.value, StoreUnavailableError), connect.__name__
        assert "sslrootcert" in caught.value.fix


def test_a_server_under_another_name_is_refused(database: Database) -> None:
    dsn = database.server.dsn(database.name, host="127.0.0.1")
    with pytest.raises(StorageError, match="does not match host name"):
        connect_server(dsn)


def test_a_wrong_password_is_no_matter_of_waiting(database: Database) -> None:
    postgres = Postgres(database.server.dsn(database.name, password="wr0ng"))
    for connect in (postgres.connect, postgres.connect_arrow):
        with pytest.raises(StorageError, match="password authentication failed") as caught, connect():
            pass
        assert not isinstance(caught.value, StoreUnavailableError)
        assert "wr0ng" not in str(caught.value)
        assert f"localhost:{database.server.port}/{database.name}" in str(caught.value)


def test_what_is_no_address_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="postgres_dsn") as caught:
        connect_server("server=somewhere;password=s3cret")
    assert "s3cret" not in str(caught.value)


# --- the server goes away -------------------------------------------------------------------------------------------


def test_a_lock_lost_with_its_server_is_taken_again(database: Database) -> None:
    with open_postgres(database.settings) as postgres, hold_run_lock(postgres, run="run") as lock:
        database.server.stop("immediate")
        with pytest.raises(StoreUnavailableError, match=rf"localhost:{database.server.port}"), postgres.connect():
            pass
        with pytest.raises(StoreUnavailableError):
            lock.ensure_held()
        database.server.start()
        assert lock_holder(postgres) is None
        lock.ensure_held()
        holder = lock_holder(postgres)
        assert holder is not None
        assert holder.command == "run"


# --- the whole pipeline -----------------------------------------------------------------------------------------------

MARTS = {
    "scores": "select meter_id, reading_timestamp, consumption_kwh, anomaly_score, is_anomaly, anomaly_type "
    "from marts.mart_anomaly_scores order by 1, 2",
    "metrics": "select * from marts.mart_consumption_metrics order by meter_id, period_type, period_start",
    "gaps": "select * from intermediate.int_reading_gaps order by 1, 2",
}


@pytest.mark.heavy
def test_the_whole_pipeline_on_a_server_gives_what_the_embedded_one_gives(database: Database, tmp_path: Path) -> None:
    """On another version, over TLS, as a user who owns nothing, and with other habits of writing dates."""
    fleet = generate(tmp_path / "fleet", meters=4, days=30, seed=5, progress=Progress())
    whole = pl.read_csv(fleet.readings)
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    last_days = sorted(whole["timestamp"].str.slice(0, 10).unique())[25]
    whole.filter(pl.col("timestamp") < last_days).write_csv(first)
    whole.filter(pl.col("timestamp") >= last_days).write_csv(second)
    results = {}
    for name, settings in {"server": database.settings, "embedded": Settings(home=tmp_path / "embedded")}.items():
        for file in (first, second):
            run_steps(settings, RunOptions(files=(file,)), ALL_STEPS)
        with open_postgres(settings) as postgres:
            results[name] = {mart: query(postgres, text) for mart, text in MARTS.items()}
        again = run_steps(settings, RunOptions(files=(second,)), ALL_STEPS)
        assert {step.status for step in again.steps} == {"skipped"}
    assert len(results["server"]["scores"]) == whole.height
    assert results["server"] == results["embedded"]

    with open_postgres(database.user(READER)) as postgres:
        assert query(postgres, MARTS["scores"]) == results["server"]["scores"]
        owners = query(
            postgres,
            "select schemaname, array_agg(distinct tableowner::text) from pg_tables "
            f"where schemaname in {SCHEMAS} group by 1 order by 1",
        )
    assert owners == [(schema, [OWNERS[schema]]) for schema in sorted(SCHEMAS)]

    dsn = make_conninfo(database.settings.postgres_dsn.get_secret_value(), sslrootcert=database.server.other_ca_file)
    # a driver of its own: dbt's
    with pytest.raises(StorageError, match="certificate verify failed"):
        run_dbt(database.settings.model_copy(update={"postgres_dsn": SecretStr(dsn)}), ["debug"])


def test_doctor_shows_roles_holder_and_encryption(database: Database) -> None:
    with open_postgres(database.settings) as postgres, hold_run_lock(postgres, run="ingest"):
        findings = {finding.name: finding for finding in examine(database.settings)}
    assert re.fullmatch(r"15\.\d+.*, server, TLSv1\.[23]", findings["PostgreSQL"].found)
    assert findings["run lock"].found.startswith("held by 'ingest' (process ")
    assert findings["roles"].ok
    assert "energy_loader, energy_transformer" in findings["roles"].found
    lacking = {finding.name: finding for finding in examine(database.user(READER))}["roles"]
    assert not lacking.ok
    assert "init-db --user u_" in lacking.fix
