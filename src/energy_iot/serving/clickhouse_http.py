"""A loopback HTTP front over the embedded ClickHouse, so that several programs can ask it at once.

It speaks as much of ClickHouse's HTTP interface as clickhouse-connect, dbt-clickhouse and Superset use; it is no
ClickHouse server. Two users with random passwords: `pipeline` may do anything, `dashboards` may read.
"""

import asyncio
import base64
import binascii
import hmac
import json
import os
import re
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from typing import Final
from uuid import uuid4

import pyarrow as pa
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from energy_iot.errors import StorageError
from energy_iot.serving.chdb_sessions import Answer, ChdbSessions, Statement, StatementError
from energy_iot.serving.front_file import HOST, READER, WRITER, FrontAddress, announce, hold_front
from energy_iot.serving.local_server import asked_to_stop
from energy_iot.serving.reader_rights import ReaderRefusedError
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import folder_error

WORKERS: Final = 16
LONGEST_BODY: Final = 1024**3
LONGEST_SESSION_SECONDS: Final = 3600
STOP_SECONDS: Final = 5
ARROW_CODECS: Final = {"lz4": "lz4", "gzip": "gzip", "zstd": "zstd", "br": "brotli"}  # Content-Encoding: Arrow's name
# Parameters of the interface; all other parameters of a request are settings.
INTERFACE_PARAMETERS: Final = frozenset(
    {"query", "database", "default_format", "session_id", "session_timeout", "session_check", "query_id", "user",
     "password", "quota_key", "role", "wait_end_of_query", "buffer_size", "enable_http_compression", "stacktrace",
     "send_progress_in_http_headers", "http_headers_progress_interval_ms", "client_protocol_version", "compress",
     "decompress", "cancel_http_readonly_queries_on_client_close", "add_http_cors_header"}
)  # fmt: skip
# HTTP status by error code, as ClickHouse's HTTPHandler gives them; all others are 500.
STATUSES: Final = (
    dict.fromkeys((6, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 70, 72, 117, 158, 386, 456, 457), 400)
    | dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 81, 115, 372), 404)
    | {48: 501, 159: 408, 164: 500, 194: 401, 373: 500, 396: 500, 497: 403, 516: 403}
)
AUTHENTICATION_FAILED: Final = (
    "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no such user. "
    "(AUTHENTICATION_FAILED)"
)


class FrontApp:
    """The HTTP application.

    Attributes:
        app: For uvicorn.
    """

    def __init__(self, sessions: ChdbSessions, passwords: Mapping[str, str]) -> None:
        """Make the application over the engine; `passwords` are those of `pipeline` and `dashboards`."""
        self._sessions, self._passwords = sessions, passwords
        self._time_zone = sessions.execute("select timezone()").decode().strip()
        self._workers = ThreadPoolExecutor(WORKERS, "clickhouse")
        self._stopping = False
        self.app = Starlette(
            routes=[
                Route("/", self._answer, methods=["GET", "POST"]),
                Route("/ping", self._ping, methods=["GET", "HEAD"]),
            ]
        )

    def stop(self) -> None:
        """End running statements and wait for their threads."""
        self._stopping = True
        ending = threading.Thread(target=self._workers.shutdown, kwargs={"cancel_futures": True})
        ending.start()
        while ending.is_alive():
            self._sessions.cancel_all()  # once more for a statement that had only begun
            ending.join(0.2)

    async def _ping(self, _: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def _answer(self, request: Request) -> Response:
        started = time.monotonic()
        headers = {
            "X-ClickHouse-Server-Display-Name": "chdb",
            "X-ClickHouse-Timezone": self._time_zone,
            "X-ClickHouse-Query-Id": request.query_params.get("query_id") or str(uuid4()),
        }
        if self._stopping:
            return PlainTextResponse("the front is stopping\n", status_code=503)
        try:
            user = self._user(request)
            if not request.query_params and request.method == "GET":
                return PlainTextResponse("Ok.\n", headers=headers)
            statement = _statement(request, await _body(request))
            # as with ClickHouse, what a link can ask for is reading
            run = self._sessions.write if user == WRITER and request.method == "POST" else self._sessions.read
            answer = await asyncio.get_running_loop().run_in_executor(self._workers, run, statement)
        except (StatementError, ReaderRefusedError) as error:
            return _error_response(str(error), headers)
        return _response(request, answer, headers, time.monotonic() - started)

    def _user(self, request: Request) -> str:
        user, password = _credentials(request)
        known = self._passwords.get(user, "")
        if not (hmac.compare_digest(known.encode(), password.encode()) and known):
            raise StatementError(AUTHENTICATION_FAILED)
        return user


def _credentials(request: Request) -> tuple[str, str]:
    authorization = request.headers.get("Authorization", "")
    if authorization.startswith("Basic "):
        try:
            user, _, password = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise StatementError(AUTHENTICATION_FAILED) from error
        return user, password
    parameters = request.query_params
    return (
        request.headers.get("X-ClickHouse-User") or parameters.get("user") or "default",
        request.headers.get("X-ClickHouse-Key") or parameters.get("password") or "",
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_BODY:
                raise StatementError("Code: 307. DB::Exception: the request is too large. (TOO_MANY_BYTES)")
    except ClientDisconnect as error:
        raise StatementError("Code: 210. DB::Exception: the client went away. (NETWORK_ERROR)") from error
    return _decompressed(bytes(body), request.headers.get("Content-Encoding", "identity"))


def _decompressed(body: bytes, encoding: str) -> bytes:
    try:
        if encoding in ARROW_CODECS:
            with pa.CompressedInputStream(pa.BufferReader(body), ARROW_CODECS[encoding]) as stream:
                return bytes(stream.read())
        if encoding == "deflate":
            return zlib.decompress(body)
    except (OSError, zlib.error) as error:
        raise StatementError(
            f"Code: 354. DB::Exception: the body is not {encoding}: {error}. (ZLIB_INFLATE_FAILED)"
        ) from error
    if encoding != "identity":
        raise StatementError(f"Code: 48. DB::Exception: Content-Encoding {encoding} is unknown. (NOT_IMPLEMENTED)")
    return body


def _statement(request: Request, body: bytes) -> Statement:
    parameters = dict(request.query_params)
    if request.headers.get("Content-Type", "").startswith("multipart/form-data"):
        parameters |= _form_fields(request.headers["Content-Type"], body)
        body = b""
    if "1" in (parameters.get("compress"), parameters.get("decompress")):
        raise StatementError("Code: 48. DB::Exception: use HTTP compression here. (NOT_IMPLEMENTED)")
    seconds = parameters.get("session_timeout", "60")
    return Statement(
        text=b"\n".join(part for part in (parameters.get("query", "").rstrip().encode(), body) if part),
        database=parameters.get("database") or request.headers.get("X-ClickHouse-Database"),
        default_format=parameters.get("default_format") or request.headers.get("X-ClickHouse-Format", "TabSeparated"),
        settings={
            name: value
            for name, value in parameters.items()
            if name not in INTERFACE_PARAMETERS and not name.startswith("param_")
        },
        parameters={
            name.removeprefix("param_"): value for name, value in parameters.items() if name.startswith("param_")
        },
        session_id=parameters.get("session_id") or None,
        session_seconds=min(int(seconds), LONGEST_SESSION_SECONDS) if seconds.isdecimal() else 60,
        must_exist=parameters.get("session_check") == "1",
    )


def _form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Fields of a form: how clients send parameters that are too long for a URL."""
    form = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body, policy=HTTP)
    fields = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None or not isinstance(name, str):
            raise StatementError("Code: 48. DB::Exception: external tables are not served here. (NOT_IMPLEMENTED)")
        content = part.get_payload(decode=True)
        fields[name] = content.decode() if isinstance(content, bytes) else ""
    return fields


def _response(request: Request, answer: Answer, headers: dict[str, str], seconds: float) -> Response:
    summary = {**answer.summary, "elapsed_ns": str(int(seconds * 1e9))}
    headers = {**headers, "X-ClickHouse-Summary": json.dumps(summary)}
    if answer.format is not None:
        headers["X-ClickHouse-Format"] = answer.format
    body = answer.body
    encoding = _accepted_encoding(request)
    if encoding and body:
        headers["Content-Encoding"] = encoding
        body = _compressed(body, encoding)
    return Response(body, media_type="text/plain; charset=UTF-8", headers=headers)


def _accepted_encoding(request: Request) -> str | None:
    if request.query_params.get("enable_http_compression") != "1":
        return None
    accepted = [part.split(";")[0].strip() for part in request.headers.get("Accept-Encoding", "").split(",")]
    return next((name for name in accepted if name in ARROW_CODECS or name == "deflate"), None)


def _compressed(body: bytes, encoding: str) -> bytes:
    if encoding == "deflate":
        return zlib.compress(body, 1)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, ARROW_CODECS[encoding]) as stream:
        stream.write(body)
    return bytes(sink.getvalue().to_pybytes())


def _error_response(text: str, headers: dict[str, str]) -> Response:
    found = re.search(r"Code: (\d+)", text)
    code = int(found[1]) if found else 1002
    return PlainTextResponse(
        f"{text.strip()}\n",
        status_code=STATUSES.get(code, 500),
        headers={**headers, "X-ClickHouse-Exception-Code": str(code)},
    )


# --- running it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Front:
    """A running front.

    Attributes:
        address: How to reach it.
        ended: Set when the server has ended, by itself or because it was told to.
    """

    address: FrontAddress
    ended: threading.Event


@contextmanager
def running_front(settings: Settings, *, port: int = 0) -> Iterator[Front]:
    """Run the front in a thread of this process while the block runs.

    Args:
        settings: Names the home whose embedded ClickHouse is served.
        port: On the loopback address; 0 takes a free one.

    Raises:
        StorageError: Another front or process holds the folder, or the port is taken.
    """
    if settings.clickhouse_url is not None:
        raise StorageError(
            "ClickHouse is a server here (clickhouse_url), and needs no front",
            fix="let programs ask the server itself, or unset ENERGY_IOT_CLICKHOUSE_URL",
        )
    with hold_front(settings.home), _bound_socket(port) as listener, _opened(settings) as sessions:
        passwords = {user: secrets.token_urlsafe(32) for user in (WRITER, READER)}
        front_app = FrontApp(sessions, passwords)
        server = uvicorn.Server(
            uvicorn.Config(
                front_app.app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=120,  # clients pause between statements longer than the default
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        ended = threading.Event()
        thread = threading.Thread(target=_serve, args=(server, listener, ended), name="clickhouse-http")
        thread.start()
        address = FrontAddress(listener.getsockname()[1], os.getpid(), passwords)
        announce(settings.home, address)
        try:
            yield Front(address, ended)
        finally:
            server.should_exit = True
            front_app.stop()
            thread.join()


def serve(settings: Settings, *, port: int | None = None, started: Callable[[FrontAddress], None]) -> None:
    """Run the front until SIGTERM or SIGINT, which end running statements and stop it within seconds.

    Args:
        settings: Names the home whose embedded ClickHouse is served.
        port: On the loopback address, 0 for a free one; None takes the one of the settings.
        started: Called once it answers.

    Raises:
        StorageError: Another front or process holds the folder, the port is taken, or the server broke.
    """
    chosen = settings.clickhouse_http_port if port is None else port
    with asked_to_stop() as asked, running_front(settings, port=chosen) as front:
        started(front.address)
        while not (asked.wait(1) or front.ended.is_set()):
            pass
    if not asked.is_set():
        raise StorageError(
            "the front of the embedded ClickHouse ended by itself", fix="see the log, and start it again"
        )


def _serve(server: uvicorn.Server, listener: socket.socket, ended: threading.Event) -> None:
    try:
        server.run(sockets=[listener])
    finally:
        ended.set()


@contextmanager
def _bound_socket(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise StorageError(
                f"port {port} is taken: {error.strerror}", fix="choose another --port, or 0 for any"
            ) from error
        listener.listen(128)  # clients that come before the server's first turn wait in the queue
        yield listener


@contextmanager
def _opened(settings: Settings) -> Iterator[ChdbSessions]:
    folder = settings.home / "clickhouse"
    try:
        sessions = ChdbSessions(folder, settings.clickhouse_database)
    except RuntimeError as error:
        raise folder_error(folder, str(error)) from error
    try:
        yield sessions
    finally:
        sessions.close()
