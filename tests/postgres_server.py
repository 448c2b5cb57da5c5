"""A PostgreSQL server of the system's package for tests: over TCP, with passwords and TLS, unlike the embedded one."""

import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import trustme
from psycopg import sql
from psycopg.conninfo import make_conninfo

from energy_iot.storage.embedded_postgres import _as_server_user, _own

VERSION: Final = 15
PROGRAMS: Final = Path(f"/usr/lib/postgresql/{VERSION}/bin")
HOST: Final = "localhost"
ADMIN: Final = "admin"

# unlike ours on purpose: what follows from them must come out the same
CONFIGURATION: Final = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
password_encryption = 'scram-sha-256'
timezone = 'Africa/Lagos'
datestyle = 'SQL, DMY'
fsync = off
max_connections = 60
"""


def missing() -> str | None:
    """Why there is no such server here, or None."""
    return None if (PROGRAMS / "initdb").exists() else f"{PROGRAMS} is not there: install postgresql-{VERSION}"


@dataclass
class TcpServer:
    """The server, its certificates, and its users."""

    folder: Path
    port: int
    password: str
    ca_file: Path
    other_ca_file: Path

    def dsn(self, database: str, user: str = ADMIN, password: str | None = None, **more: object) -> str:
        """A connection string, encrypted and with the server's name checked unless `more` says otherwise."""
        known: dict[str, object] = {
            "host": HOST,
            "port": self.port,
            "user": user,
            "password": password or self.password,
            "dbname": database,
            "sslmode": "verify-full",
            "sslrootcert": self.ca_file,
        }
        return make_conninfo(**{name: str(value) for name, value in (known | more).items()})

    def execute(self, statement: str, *names: str, database: str = "postgres") -> None:
        """Run a statement as the administrator, with identifiers filled in."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def create_user(self, name: str, *roles: str) -> str:
        """A user who logs in, in these roles; returns the password."""
        password = secrets.token_urlsafe()
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(password))
            )
            for role in roles:
                connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(name)))
        return password

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._pg_ctl("start", "-w", "-l", str(self.folder / "server.log"), "-o", f"-p {self.port}")

    def stop(self, mode: str = "fast") -> None:
        """Stop it, and wait until it has gone."""
        self._pg_ctl("stop", "-w", "-m", mode)

    def _pg_ctl(self, *arguments: str) -> None:
        subprocess.run(
            [*_as_server_user(), str(PROGRAMS / "pg_ctl"), *arguments, "-D", str(self.folder)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=60,
        )  # fmt: skip


@contextmanager
def running_tcp_server(parent: Path) -> Iterator[TcpServer]:
    """A new server in a folder of its own below `parent`, stopped when the block ends."""
    folder, password_file = parent / "server", parent / "password"
    password = secrets.token_urlsafe()
    password_file.write_text(password)
    folder.mkdir(mode=0o700)
    _own(folder)
    subprocess.run(
        [
            *_as_server_user(), str(PROGRAMS / "initdb"), "-U", ADMIN, "--auth=scram-sha-256", "--encoding=UTF8",
            "--locale=C", f"--pwfile={password_file}", "-D", str(folder),
        ],
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    ca_file, other_ca_file = parent / "ca.pem", parent / "other_ca.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(ca_file))
    trustme.CA().cert_pem.write_to_path(str(other_ca_file))
    certificate = ca.issue_cert(HOST)
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    for part in certificate.cert_chain_pems:
        part.write_to_path(str(folder / "server.crt"), append=True)
    (folder / "server.key").chmod(0o600)
    for name in ("server.key", "server.crt"):
        _own(folder / name)
    with (folder / "postgresql.conf").open("a") as file:
        file.write(CONFIGURATION)
    server = TcpServer(folder, _free_port(), password, ca_file, other_ca_file)
    server.start()
    try:
        yield server
    finally:
        if (folder / "postmaster.pid").exists():
            server.stop("immediate")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
