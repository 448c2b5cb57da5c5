"""Where ClickHouse is: the folder, the front over it, or a server; and what it means when it is not there."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import trustme
import uvicorn
from clickhouse_connect.driver.client import Client
from urllib3.exceptions import InsecureRequestWarning

from energy_iot.errors import StorageError, StoreUnavailableError
from energy_iot.serving.chdb_sessions import ChdbSessions
from energy_iot.serving.clickhouse_http import FrontApp, running_front
from energy_iot.serving.front_file import FILE_NAME, LOCK_NAME, READER, WRITER, find_front, hold_front
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import clickhouse_place, open_clickhouse

PASSWORD = "p/a ss#1@"
QUOTED_PASSWORD = "p%2Fa%20ss%231%40"
ENDLESS = "select count() from numbers(1000000000000) where sipHash64(number) = 1"
SERVE = """
import sys
from pathlib import Path
from energy_iot.serving.clickhouse_http import serve
from energy_iot.settings import Settings
serve(Settings(home=Path(sys.argv[1])), port=0, started=lambda address: print(address.port, flush=True))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@contextmanager
def serving_process(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A front in a process of its own, answering."""
    with subprocess.Popen([sys.executable, "-c", SERVE, str(home)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip().isdigit()
            yield process
        finally:
            process.kill()


def server_settings(url: str) -> Settings:
    return Settings.model_validate({"clickhouse_url": url})


def failure(settings: Settings, statement: str = "select 1") -> StorageError:
    """The error of opening ClickHouse and asking it something."""
    with pytest.raises(StorageError) as caught, open_clickhouse(settings) as client:
        client.command(statement)
    return caught.value


# --- folder and front -----------------------------------------------------------------------------------------------


def test_the_pipeline_uses_the_front_when_it_runs_and_the_folder_when_not(settings: Settings) -> None:
    def interface(client: Client) -> str:
        return type(client).__name__

    with open_clickhouse(settings) as client:
        assert interface(client) == "ChdbClient"
        client.command("create table kept (x Int8) engine = MergeTree order by x")
    with running_front(settings), open_clickhouse(settings) as client:
        assert interface(client) == "HttpClient"
        client.command("insert into kept values (7)")
        assert client.database == settings.clickhouse_database
    with open_clickhouse(settings) as client:
        assert interface(client) == "ChdbClient"
        assert client.query("select x from kept").result_rows == [(7,)]


def test_the_place_is_the_same_with_and_without_a_front(settings: Settings) -> None:
    """What is published there stays known when a front starts."""
    place = clickhouse_place(settings)
    with running_front(settings):
        assert clickhouse_place(settings) == place == str(settings.home / "clickhouse")
    assert clickhouse_place(server_settings("http://u:p@db.example:9000")) == "db.example:9000"
    assert clickhouse_place(server_settings("https://u:p@db.example/x")) == "db.example:8443"


def test_passwords_are_new_each_time_for_the_owner_only_and_go_at_the_end(settings: Settings) -> None:
    seen = set()
    for _ in range(2):
        with running_front(settings) as front:
            file = settings.home / FILE_NAME
            assert file.stat().st_mode & 0o777 == 0o600
            told = json.loads(file.read_text())
            assert (told["port"], told["pid"]) == (front.address.port, os.getpid())
            seen |= set(told["passwords"].values())
        assert not file.exists()
    assert len(seen) == 4
    assert min(map(len, seen)) >= 32


def test_a_second_front_is_refused_and_told_where_the_first_is(settings: Settings) -> None:
    with (
        running_front(settings) as front,
        pytest.raises(StorageError, match=f"process {os.getpid()}, port {front.address.port}"),
        running_front(settings),
    ):
        pass


def test_a_front_that_only_starts_can_be_tried_again(settings: Settings) -> None:
    with hold_front(settings.home):
        assert isinstance(failure(settings), StoreUnavailableError)


def test_a_taken_port_is_told(settings: Settings) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=f"port {port}"), running_front(settings, port=port):
            pass
    with running_front(settings):
        pass


def test_servers_need_no_front() -> None:
    with pytest.raises(StorageError, match="clickhouse_url"), running_front(server_settings("http://u:p@h:1")):
        pass


def test_a_held_folder_names_who_holds_it(settings: Settings) -> None:
    script = "import chdb, sys; kept = chdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    folder = settings.home / "clickhouse"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        told = f"held by process {process.pid}"
        assert told in failure(settings).problem
        with pytest.raises(StorageError, match=told), running_front(settings):
            pass
        assert not (settings.home / FILE_NAME).exists()
        process.communicate()
    with open_clickhouse(settings) as client:
        assert client.command("select 1") == 1


def test_a_folder_that_cannot_be_opened_is_told(settings: Settings) -> None:
    (settings.home / "clickhouse").mkdir(parents=True)
    (settings.home / "clickhouse" / "metadata").write_text("in the way")
    error = failure(settings)
    assert "metadata" in error.problem
    assert not isinstance(error, StoreUnavailableError)


def test_a_killed_front_leaves_a_stale_file_that_nobody_believes(settings: Settings) -> None:
    with serving_process(settings.home) as process:
        with open_clickhouse(settings) as client:
            client.command("create table kept (x Int8) engine = MergeTree order by x")
            client.command("insert into kept values (7)")
        process.send_signal(signal.SIGKILL)
    assert (settings.home / FILE_NAME).exists()
    assert find_front(settings.home) is None
    with open_clickhouse(settings) as client:
        assert client.query("select x from kept").result_rows == [(7,)]
    with running_front(settings) as front:
        assert find_front(settings.home) == front.address


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order_though_it_is_busy(settings: Settings, number: signal.Signals) -> None:
    errors = []

    def ask() -> None:
        try:
            with open_clickhouse(settings) as client:
                client.command(ENDLESS)
        except StorageError as error:
            errors.append(error)

    with serving_process(settings.home) as process:
        asking = threading.Thread(target=ask)
        asking.start()
        with open_clickhouse(settings) as client:
            busy = f"select count() from system.processes where query like '%{ENDLESS[-30:]}'"
            while client.command(busy) == 0:
                assert asking.is_alive()
        process.send_signal(number)
        assert process.wait(15) == 0
        asking.join(15)
    assert [type(error) for error in errors] == [StoreUnavailableError]
    assert sorted(path.name for path in settings.home.iterdir()) == [LOCK_NAME, "clickhouse"]


# --- servers that are not there -------------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Callable[[bytes | None], int]]:
    """Start a server that gives the same bytes to every request (None: no answer); gives its port."""
    with ExitStack() as stack:

        def start(answer: bytes | None) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            kept = []

            def run() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with ExitStack() as request:
                        (stack if answer is None else request).enter_context(connection)
                        kept.append(connection.recv(100_000))
                        if answer is not None:
                            connection.sendall(answer)

            threading.Thread(target=run, daemon=True).start()
            return int(listener.getsockname()[1])

        yield start


ANSWERS = {
    "closes": b"",
    "breaks off": b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\npartly",
    "is no web server": b"220 mail.example ESMTP\r\n",
    "is overloaded": b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
    "is behind a broken gateway": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
    "shuts down": b"HTTP/1.1 500 Error\r\nX-ClickHouse-Exception-Code: 394\r\nContent-Length: 10\r\n\r\nCode: 394.",
    "never answers": None,
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_server_that_fails_can_be_tried_again(answering: Callable[[bytes | None], int], kind: str) -> None:
    port = answering(ANSWERS[kind])
    options = "?send_receive_timeout=1" if kind == "never answers" else ""
    error = failure(server_settings(f"http://u:{QUOTED_PASSWORD}@127.0.0.1:{port}/{options}"))
    assert isinstance(error, StoreUnavailableError)
    assert f"127.0.0.1:{port}" in error.problem
    assert_no_password(error)


def test_a_refused_connection_can_be_tried_again() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    error = failure(server_settings(f"http://u:{QUOTED_PASSWORD}@127.0.0.1:{port}"))
    assert isinstance(error, StoreUnavailableError)
    assert f"127.0.0.1:{port}: [Errno" in error.problem
    assert_no_password(error)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://u:{}@no-such-host.invalid:8123", "no-such-host.invalid:8123"),
        ("clickhouse://u:{}@host:9000", "not the address"),
        ("http://u:p/a ss#1@host:8123", "not the address"),
        ("http://u:{}@host:x", "not the address"),
        ("http://u:{}@", "not the address"),
        ("https://u:{}@127.0.0.1:1?verify=maybe", "verify=maybe"),
        ("http://u:{}@127.0.0.1:1?connect_timeout=soon", "connect_timeout"),
    ],
)
def test_an_address_that_cannot_be_is_an_error_to_correct(url: str, told: str) -> None:
    error = failure(server_settings(url.format(QUOTED_PASSWORD)))
    assert not isinstance(error, StoreUnavailableError)
    assert told in error.problem
    assert_no_password(error)


def test_a_wrong_password_is_an_error_to_correct(settings: Settings) -> None:
    with running_front(settings) as front:
        error = failure(server_settings(f"http://{WRITER}:{QUOTED_PASSWORD}@127.0.0.1:{front.address.port}"))
        refused = failure(server_settings(front.address.url(READER)))
    for told in (error, refused):
        assert not isinstance(told, StoreUnavailableError)
        assert "user" in told.fix
    assert "AUTHENTICATION_FAILED" in error.problem
    assert_no_password(error)


def test_a_faulty_statement_is_no_matter_of_the_connection(settings: Settings) -> None:
    for stack_front in (False, True):
        with ExitStack() as stack:
            if stack_front:
                stack.enter_context(running_front(settings))
            error = failure(settings, "select nope")
        assert type(error) is StorageError
        assert "UNKNOWN_IDENTIFIER" in error.problem


def assert_no_password(error: BaseException) -> None:
    cause: BaseException | None = error
    while cause is not None:
        assert PASSWORD not in str(cause)
        assert QUOTED_PASSWORD not in str(cause)
        assert "ss#1" not in str(cause)
        cause = cause.__cause__


@pytest.mark.parametrize("front", [False, True], ids=["embedded", "front"])
def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path, front: bool) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small filesystem cannot be mounted here: {mounted.stderr.decode().strip()}")
    settings = Settings(home=disk / "home")
    try:
        with running_front(settings) if front else ExitStack():
            with open_clickhouse(settings) as client:
                client.command("create table kept (x UInt64) engine = MergeTree order by x")
                client.command("insert into kept select rand64() from numbers(100000)")
                client.command("create table more (x UInt64) engine = MergeTree order by x")
            error = failure(settings, "insert into more select rand64() from numbers(5000000)")
            assert "ran out of space" in error.problem
            assert type(error) is StorageError
            with open_clickhouse(settings) as client:
                assert client.query("select count() from kept").result_rows == [(100_000,)]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return authority


@contextmanager
def tls_server(tmp_path: Path, authority: trustme.CA, *, clients: bool = False) -> Iterator[int]:
    """A ClickHouse over TLS, which asks clients for a certificate if told to; gives its port."""
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        sessions = ChdbSessions(tmp_path / "clickhouse", "energy_analytics")
        front = FrontApp(sessions, {WRITER: PASSWORD})
        config = uvicorn.Config(
            front.app,
            ssl_certfile=certificate,
            ssl_cert_reqs=ssl.CERT_REQUIRED if clients else ssl.CERT_NONE,
            ssl_ca_certs=str(tmp_path / "ca.pem") if clients else None,
            log_level="critical",
            lifespan="off",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            front.stop()
            thread.join()
            sessions.close()


def test_tls_settings_of_the_url_reach_the_driver(tmp_path: Path, authority: trustme.CA) -> None:
    with tls_server(tmp_path, authority) as port:
        url = f"https://{WRITER}:{QUOTED_PASSWORD}@localhost:{port}/"
        for options in (f"?ca_cert={tmp_path}/ca.pem", "?verify=false"):
            unverified = pytest.warns(InsecureRequestWarning) if "verify" in options else ExitStack()
            with unverified, open_clickhouse(server_settings(url + options)) as client:
                assert client.command("select 1") == 1
        for wrong in (
            url,  # an authority that nobody here knows
            url.replace("https", "http"),
            f"https://{WRITER}:{QUOTED_PASSWORD}@127.0.0.1:{port}/?ca_cert={tmp_path}/ca.pem",  # another name
        ):
            error = failure(server_settings(wrong))
            assert_no_password(error)
            if wrong.startswith("https"):
                assert not isinstance(error, StoreUnavailableError)
                assert "ca_cert" in error.fix
                assert "certificate" in error.problem.lower()


def test_certificates_of_clients_reach_the_server(tmp_path: Path, authority: trustme.CA) -> None:
    with tls_server(tmp_path, authority, clients=True) as port:
        url = f"https://{WRITER}:{QUOTED_PASSWORD}@localhost:{port}/?ca_cert={tmp_path}/ca.pem"
        with open_clickhouse(server_settings(f"{url}&client_cert={tmp_path}/client.pem&tls_mode=strict")) as client:
            assert client.command("select 1") == 1
        assert_no_password(failure(server_settings(url)))
