"""What drivers say, as errors for people: what may pass by itself, what a person must see to, and what is a bug."""

import pytest

from energy_iot.errors import StorageError, StoreUnavailableError
from energy_iot.storage.postgres_errors import storage_error

REFUSED = (
    'connection failed: connection to server at "db", port 5432 failed: Connection refused\n\tIs the server running?'
)
FATAL = 'connection failed: connection to server at "db", port 5432 failed: FATAL:  '


def told(text: str, sqlstate: str | None = None, *, operational: bool = True) -> StorageError | None:
    return storage_error(text, sqlstate, operational=operational, place="db:5432/energy", password="s3cret")


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        (REFUSED, None),
        ("IO: [libpq] Failed to connect: " + REFUSED, None),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", None),
        (FATAL + "the database system is starting up", None),
        (FATAL + "the database system is not yet accepting connections", None),
        (FATAL + "sorry, too many clients already", None),
        ("consuming input failed: server closed the connection unexpectedly\n\tThis probably means", None),
        ("consuming input failed: SSL SYSCALL error: EOF detected", None),
        ("SSL connection has been closed unexpectedly", None),
        ("connection timeout expired", None),
        ("connection socket closed", None),
        ("the connection is lost", None),
        (
            "[libpq] Execution error [PGRES_FATAL_ERROR]: FATAL:  terminating connection due to administrator command",
            None,
        ),
        ("terminating connection due to administrator command", "57P01"),
        ("Verbindung wird abgebrochen", "57P02"),
        ("could not receive data", "08006"),
        ("deadlock detected", "40P01"),
    ],
)
def test_what_may_pass_is_tried_again(text: str, sqlstate: str | None) -> None:
    error = told(text, sqlstate)
    assert isinstance(error, StoreUnavailableError)
    assert error.problem.startswith("PostgreSQL at db:5432/energy: ")
    assert "\n" not in error.problem
    assert "Is the server running" not in error.problem


@pytest.mark.parametrize(
    ("text", "sqlstate", "fix"),
    [
        (FATAL + 'password authentication failed for user "u"', None, "password"),
        (FATAL + 'database "energy" does not exist', None, "database"),
        (FATAL + 'no pg_hba.conf entry for host "10.0.0.1", user "u", database "energy", no encryption', None, "user"),
        (FATAL + 'permission denied to set role "energy_loader"', None, "init-db"),
        ("permission denied for table meter_readings", "42501", "init-db"),
        ("connection failed: SSL error: certificate verify failed", None, "sslrootcert"),
        ('server certificate for "localhost" does not match host name "db"', None, "sslrootcert"),
        ("connection failed: server does not support SSL, but SSL was required", None, "sslmode"),
        (
            'could not extend file "base/1/2": No space left on device\nHINT:  Check free disk space.',
            "53100",
            "free space",
        ),
        ("[libpq] ERROR:  could not write to file: No space left on device", None, "free space"),
        ("out of memory\nDETAIL:  Failed on request of size 1024", "53200", "free memory"),
        ("canceling statement due to statement timeout", "57014", "log"),
        (FATAL + "something in another language", None, "log"),
    ],
)
def test_what_a_person_must_see_to_is_not(text: str, sqlstate: str | None, fix: str) -> None:
    error = told(text, sqlstate)
    assert type(error) is StorageError
    assert "db:5432/energy" in error.problem
    assert fix in error.fix


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ('relation "nowhere" does not exist\nLINE 1: select * from nowhere', "42P01"),
        ("division by zero", "22012"),
        ('column "the connection is closed" does not exist', "42703"),  # a code says more than words
        ("[libpq] ERROR:  division by zero", None),
    ],
)
def test_a_faulty_statement_is_none_of_it(text: str, sqlstate: str | None) -> None:
    assert told(text, sqlstate, operational=False) is None


def test_only_what_the_server_says_is_shown_and_no_password() -> None:
    error = told('permission denied for table s3cret\nLINE 1: select "s3cret"\n               ^', "42501")
    assert error is not None
    assert error.problem == "PostgreSQL at db:5432/energy: permission denied for table ***"
