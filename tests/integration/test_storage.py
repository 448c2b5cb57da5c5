"""The embedded PostgreSQL and the migrations."""

import pytest

from energy_iot.errors import StorageError
from energy_iot.storage.postgres import Postgres, migrate


def test_a_newer_schema_is_refused(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        connection.execute("insert into quality.schema_versions (version) values (9999)")
    with pytest.raises(StorageError, match="9999"):
        migrate(postgres)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    postgres = Postgres("host=127.0.0.1 port=1 user=u password=s3cret dbname=d connect_timeout=2")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/d") as caught, postgres.connect():
        pass
    assert "s3cret" not in str(caught.value)
