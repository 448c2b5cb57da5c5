"""What surrounds dbt: the environment it reads, the options it takes, the errors it ends in."""

import os
from pathlib import Path

import pytest
from dbt.cli.exceptions import DbtUsageException

from energy_iot.errors import StorageError, StoreUnavailableError, TransformationError, UsageError
from energy_iot.storage.postgres import Postgres
from energy_iot.transformation.dbt import NodeRun, _environment, _failure, _options_of, _reason


def node(name: str = "m", status: str = "error", message: str = "", compiled: Path | None = None) -> NodeRun:
    return NodeRun(name, "model", status, 0.1, None, None, f"models/{name}.sql", message, compiled)


@pytest.fixture
def reachable(postgres_server: dict[str, str]) -> Postgres:
    return Postgres(f"host={postgres_server['host']} user={postgres_server['user']} dbname=postgres")


def test_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_POSTGRES_HOST", "before")
    monkeypatch.delenv("DBT_POSTGRES_PORT", raising=False)

    def fail_within() -> None:
        with _environment({"DBT_POSTGRES_HOST": "during", "DBT_POSTGRES_PORT": "1"}):
            assert (os.environ["DBT_POSTGRES_HOST"], os.environ["DBT_POSTGRES_PORT"]) == ("during", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert os.environ["DBT_POSTGRES_HOST"] == "before"
    assert "DBT_POSTGRES_PORT" not in os.environ


def test_only_options_that_the_command_takes() -> None:
    assert {"--target-path", "--vars"} <= _options_of(["docs", "generate"])
    assert "--target-path" not in _options_of(["debug"])
    assert "--vars" in _options_of(["run", "--select", "staging"])


def test_reason_is_the_database_message_alone() -> None:
    message = (
        "Database Error in model m (models/m.sql)\n  division by zero\n\n  DETAIL:  none\n  compiled code at /x/m.sql"
    )
    assert _reason(node(message=message)) == "division by zero\n      DETAIL:  none"
    assert _reason(node(status="fail")) == "fail"


def test_failure_names_models_and_where_the_sql_is(reachable: Postgres) -> None:
    nodes = (
        node("good", "success"),
        *(node(f"bad_{n}", message="boom", compiled=Path("/h/bad.sql")) for n in range(7)),
    )
    error = _failure(["run"], (*nodes, node("after", "skipped")), None, Path("/h"), reachable)
    assert isinstance(error, TransformationError)
    assert error.problem.startswith("dbt run: 7 of 9 failed, 1 that depend on them were skipped:")
    assert "model bad_0 (dbt/models/bad_0.sql): boom" in error.problem
    assert "... and 2 more" in error.problem
    assert "/h/bad.sql" in error.fix
    assert "/h/dbt.log" in error.fix


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Database Error in model m\n  server closed the connection unexpectedly", StoreUnavailableError),
        ("  terminating connection due to administrator command", StoreUnavailableError),
        ('  could not extend file "base/1": No space left on device', StorageError),
    ],
)
def test_storage_failures_are_storage_errors(reachable: Postgres, message: str, kind: type[StorageError]) -> None:
    error = _failure(["run"], (node(message="division by zero"), node(message=message)), None, Path("/h"), reachable)
    assert type(error) is kind
    assert message.splitlines()[-1].strip() in error.problem
    assert reachable.place in error.problem


def test_unreachable_server_wins_over_what_dbt_says() -> None:
    gone = Postgres("host=127.0.0.1 port=1 dbname=nothing")
    error = _failure(["run"], (node(message="whatever"),), None, Path("/h"), gone)
    assert isinstance(error, StoreUnavailableError)
    assert "127.0.0.1:1" in error.problem


def test_usage_and_compilation(reachable: Postgres) -> None:
    usage = _failure(["run", "--odd"], (), DbtUsageException("No such option: --odd"), Path("/h"), reachable)
    assert isinstance(usage, UsageError)
    assert usage.problem == "dbt run --odd: No such option: --odd"
    broken = _failure(["run"], (), RuntimeError("\x1b[31mno ref\x1b[0m"), Path("/h"), reachable)
    assert isinstance(broken, TransformationError)
    assert "no ref" in broken.problem
    assert "\x1b" not in broken.problem
