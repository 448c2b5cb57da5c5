"""Least privilege on a server: three roles that cannot log in, and what each may do.

energy_loader writes raw_data; energy_transformer reads it and owns everything derived; energy_reader reads. Users who
log in are members of them, and each step acts in the role it needs (storage/postgres.py: settings_for_role).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from energy_iot.errors import StorageError, UsageError
from energy_iot.settings import Settings
from energy_iot.storage.postgres import SCHEMAS, connect_server, migrate
from energy_iot.storage.role_names import LOADER, READER, TRANSFORMER

ROLES_LOCK: Final = 4_771_003  # any constant: one at a time
ROLES: Final = (LOADER, TRANSFORMER, READER)
OWNERS: Final = {schema: LOADER if schema == "raw_data" else TRANSFORMER for schema in SCHEMAS}

# All that is not read or owned: the memory of runs, which loading steps write too, and days that all have followed.
WRITES: Final = (
    (LOADER, "select, insert, update, delete", "quality.pipeline_runs"),
    (LOADER, "select, insert, update, delete", "quality.step_runs"),
    (LOADER, "select, insert, update, delete", "quality.validation_results"),
    (LOADER, "select, insert, update, delete", "quality.run_lock"),
    (LOADER, "select", "quality.schema_versions"),
    (LOADER, "select", "quality.derived_states"),
    (TRANSFORMER, "delete", "raw_data.changed_days"),
    (TRANSFORMER, "delete", "raw_data.changed_node_days"),
)
READS: Final = ((TRANSFORMER, ("raw_data",)), (READER, SCHEMAS))


@dataclass(frozen=True)
class Membership:
    """A user and the roles it was given."""

    user: str
    roles: tuple[str, ...]


def initialise_database(
    settings: Settings, *, users: Iterable[str] = (), readers: Iterable[str] = ()
) -> tuple[Membership, ...]:
    """Make roles, schemas and tables, and give each role its rights; again, it repairs what is missing.

    Args:
        settings: `postgres_admin_dsn` is who may make roles and schemas, else `postgres_dsn`.
        users: Users that run the pipeline; the one of `postgres_dsn` is always among them.
        readers: Users that only read, such as those of dashboards.

    Returns:
        Who may act in which roles now.

    Raises:
        UsageError: There is no server to initialise.
        StorageError: The administrator may not do it, or a user does not exist.
    """
    if settings.postgres_dsn is None:
        raise UsageError(
            "the embedded PostgreSQL has one user and needs no roles",
            fix="set ENERGY_IOT_POSTGRES_DSN to the server whose database is to be initialised",
        )
    dsn = settings.postgres_dsn.get_secret_value()
    admin_dsn = settings.postgres_admin_dsn
    admin = connect_server(admin_dsn.get_secret_value() if admin_dsn else dsn)
    with connect_server(dsn).connect() as connection:
        own_user = connection.info.user
    memberships = [Membership(user, (LOADER, TRANSFORMER)) for user in dict.fromkeys((own_user, *users))]
    memberships += [Membership(user, (READER,)) for user in dict.fromkeys(readers)]
    with admin.connect() as connection:
        _check_users(connection, [membership.user for membership in memberships])
        _make_roles(connection)
    migrate(admin, as_admin=True)
    with admin.connect() as connection:
        _give_rights(connection)
        for membership in memberships:
            _grant(connection, membership)
    return tuple(memberships)


def roles_of_user(connection: psycopg.Connection) -> tuple[str, ...]:
    """Which of the roles the connected user is in; superusers are in all."""
    found = connection.execute(
        "select rolname from pg_roles where rolname = any(%s) and pg_has_role(session_user, oid, 'member') "
        "order by rolname",
        (list(ROLES),),
    ).fetchall()
    return tuple(name for (name,) in found)


def _check_users(connection: psycopg.Connection, users: list[str]) -> None:
    known = {name for (name,) in connection.execute("select rolname from pg_roles where rolname = any(%s)", (users,))}
    if unknown := [user for user in users if user not in known]:
        raise StorageError(
            f"the server has no user {', '.join(unknown)}",
            fix=f"make it first, as its administrator: create role {unknown[0]} login password '...'",
        )


def _make_roles(connection: psycopg.Connection) -> None:
    # roles belong to the whole server: another database of ours may have made them, or make them just now
    connection.execute("select pg_advisory_xact_lock(%s)", (ROLES_LOCK,))
    for role in ROLES:
        if not connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
            connection.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        if not _is_member(connection, role):  # who gives things to a role must be in it
            connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(role)))


def _is_member(connection: psycopg.Connection, role: str) -> bool:
    row = connection.execute("select pg_has_role(current_user, %s, 'usage')", (role,)).fetchone()
    return row is not None and bool(row[0])


def _give_rights(connection: psycopg.Connection) -> None:
    def execute(text: str, *names: str) -> None:
        connection.execute(sql.SQL(text).format(*(sql.Identifier(*name.split(".")) for name in names)))

    (database,) = connection.execute("select current_database()").fetchone() or ()
    for role in ROLES:
        execute("grant connect, temporary on database {} to {}", database, role)
    for schema, owner in OWNERS.items():
        execute("alter schema {} owner to {}", schema, owner)
        for (table,) in connection.execute(
            "select relname from pg_class where relnamespace = %s::regnamespace and relkind in ('r', 'p', 'v', 'm') "
            "and pg_get_userbyid(relowner) <> %s",
            (schema, owner),
        ).fetchall():
            execute("alter table {} owner to {}", f"{schema}.{table}", owner)
        execute("revoke all on schema {} from public", schema)
    for role, schemas in READS:
        for schema in schemas:
            execute("grant usage on schema {} to {}", schema, role)
            execute("grant select on all tables in schema {} to {}", schema, role)
            # what dbt and migrations make later
            execute(
                "alter default privileges for role {} in schema {} grant select on tables to {}",
                OWNERS[schema],
                schema,
                role,
            )
    execute("grant usage on schema {} to {}", "quality", LOADER)
    for role, rights, table in WRITES:
        execute(f"grant {rights} on {{}} to {{}}", table, role)


def _grant(connection: psycopg.Connection, membership: Membership) -> None:
    for role in membership.roles:
        row = connection.execute("select pg_has_role(%s::name, %s::name, 'member')", (membership.user, role)).fetchone()
        if row == (True,):
            continue
        connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(membership.user)))
