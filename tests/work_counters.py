"""What PostgreSQL counts of its own work, so that a test can say how much of a table was read."""

from typing import LiteralString

from psycopg import sql

from energy_iot.ingestion.raw_tables import READING_INDEXES, READINGS_TABLE
from energy_iot.storage.postgres import Postgres
from tests.waiting import wait_for

OTHER_SESSIONS: LiteralString = (
    "select 1 from pg_stat_activity where datname = current_database() "
    "and backend_type = 'client backend' and pid <> pg_backend_pid()"
)


def keep_upkeep_off(postgres: Postgres) -> None:
    """What the server reads of the raw readings by itself, and when, is then not among what is counted."""
    with postgres.connect() as connection:
        connection.execute(sql.SQL("alter table {} set (autovacuum_enabled = off)").format(sql.SQL(READINGS_TABLE)))
        for index in READING_INDEXES:
            connection.execute(sql.SQL("alter index {} set (autosummarize = off)").format(sql.SQL(index)))


def counted(postgres: Postgres, query: LiteralString) -> list[tuple[object, ...]]:
    """The rows of a query of the statistics views, once the sessions whose work they count have ended.

    A session adds its counts when it has ended, which is a moment after its client has gone.
    """
    with postgres.connect(autocommit=True) as connection:
        wait_for(lambda: connection.execute(OTHER_SESSIONS).fetchone() is None, "end of the other sessions", 30)
        return connection.execute(query).fetchall()
