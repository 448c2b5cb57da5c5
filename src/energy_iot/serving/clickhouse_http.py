"""A loopback HTTP front over the embedded ClickHouse, so that several programs can ask it at once.

It speaks as much of ClickHouse's HTTP interface as clickhouse-connect, dbt-clickhouse and Superset use; it is no
ClickHouse server. Two users with random passwords: `pipeline` may do anything, `dashboards` may read.
"""

import asyncio
import hmac
import logging
import os
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from energy_iot.errors import StorageError
from energy_iot.serving.chdb_sessions import ChdbSessions, RunningStatement, StatementError
from energy_iot.serving.front_file import HOST, READER, WRITER, FrontAddress, announce, hold_front
from energy_iot.serving.http_answers import Delivery, error_response
from energy_iot.serving.http_requests import AUTHENTICATION_FAILED, read_body, read_credentials, read_statement
from energy_iot.serving.local_server import asked_to_stop
from energy_iot.serving.reader_rights import ReaderRefusedError
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import folder_error

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 256
STOP_SECONDS: Final = 3  # for clients to take the last of their answers
CANCEL_AGAIN_SECONDS: Final = 0.2


@dataclass(frozen=True)
class UserLimits:
    """What a user may ask for at once.

    Attributes:
        running: Statements at once; those of one user do not keep the other's waiting.
        waiting: Statements that wait for their turn; more are refused.
        longest_body: Of a request, in bytes, as it comes and unpacked.
    """

    running: int
    waiting: int
    longest_body: int


@dataclass(frozen=True)
class FrontLimits:
    """What the front bears.

    Attributes:
        pipeline: Of the user who may do anything.
        dashboards: Of the user who reads.
        patience_seconds: For a client to send the next piece of a request, or to take the next piece of an answer.
    """

    pipeline: UserLimits = UserLimits(running=8, waiting=64, longest_body=1024**3)
    dashboards: UserLimits = UserLimits(running=16, waiting=64, longest_body=16 * 1024**2)
    patience_seconds: float = 60


LIMITS: Final = FrontLimits()


class FrontApp:
    """The HTTP application.

    Attributes:
        app: For uvicorn.
    """

    def __init__(self, sessions: ChdbSessions, passwords: Mapping[str, str], limits: FrontLimits = LIMITS) -> None:
        """Make the application over the engine; `passwords` are those of `pipeline` and `dashboards`."""
        self._sessions, self._passwords = sessions, passwords
        self._patience_seconds = limits.patience_seconds
        self._time_zone = sessions.execute("select timezone()").decode().strip()
        self._queues = {WRITER: _Queue(limits.pipeline), READER: _Queue(limits.dashboards)}
        self._stopping = False
        self.app = Starlette(
            routes=[
                Route("/", _Endpoint(self._answer), methods=["GET", "POST"]),
                Route("/ping", self._ping, methods=["GET", "HEAD"]),
            ]
        )

    def stop(self) -> None:
        """End running statements and wait for their threads."""
        self._stopping = True
        for queue in self._queues.values():
            ending = threading.Thread(target=queue.close)
            ending.start()
            while ending.is_alive():
                for work in queue.unfinished():  # once more for a statement that had only begun
                    work.cancel(self._sessions)
                ending.join(CANCEL_AGAIN_SECONDS)

    async def _ping(self, _: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """The response; None when it has been sent, or there is nobody left to send it to."""
        headers = {
            "X-ClickHouse-Server-Display-Name": "chdb",
            "X-ClickHouse-Timezone": self._time_zone,
            "X-ClickHouse-Query-Id": request.query_params.get("query_id") or str(uuid4()),
        }
        if self._stopping:
            return _stopping_response()
        delivery = Delivery(request, send, headers, patience_seconds=self._patience_seconds)
        try:
            user = self._user(request)
            if not request.query_params and request.method == "GET":
                return PlainTextResponse("Ok.\n", headers=headers)
            # as with ClickHouse, what a link can ask for is reading
            role = user if request.method == "POST" else READER
            return await self._run(request, role, delivery)
        except (StatementError, ReaderRefusedError) as error:
            if delivery.has_begun:
                log.warning("an answer broke off: %s", error)
                return None  # without its end, so that nobody takes it for a whole one
            return error_response(str(error), headers)
        except ClientDisconnect:
            return None

    def _user(self, request: Request) -> str:
        user, password = read_credentials(request)
        known = self._passwords.get(user, "")
        if not (hmac.compare_digest(known.encode(), password.encode()) and known):
            raise StatementError(AUTHENTICATION_FAILED)
        return user

    async def _run(self, request: Request, role: str, delivery: Delivery) -> Response | None:
        queue = self._queues[role]
        longest = queue.limits.longest_body
        body = await read_body(request, longest=longest, patience_seconds=self._patience_seconds)
        run = self._sessions.write if role == WRITER else self._sessions.read
        running = RunningStatement()

        def answer() -> Response | None:
            with run(read_statement(request, body, longest=longest), running) as given:
                return delivery.deliver(given)

        if self._stopping:
            return _stopping_response()
        work = queue.submit(answer, running, delivery)
        ended = asyncio.wrap_future(work.future)
        gone = asyncio.ensure_future(_disconnected(request))
        either: tuple[asyncio.Future[Any], ...] = (ended, gone)
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return _stopping_response() if ended.cancelled() else ended.result()
            while not ended.done():
                await asyncio.to_thread(work.cancel, self._sessions)
                await asyncio.wait({ended}, timeout=CANCEL_AGAIN_SECONDS)
            log.info("a client went away; its statement has ended: %s", ended.cancelled() or ended.exception())
            return None
        finally:
            gone.cancel()
            queue.forget(work)


class _Endpoint:
    """A route's function that may send its response itself; Starlette gives functions no `send`."""

    def __init__(self, answer: Callable[[Request, Send], Awaitable[Response | None]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive), send)
        if response is not None:
            await response(scope, receive, send)


@dataclass(frozen=True, eq=False)
class _Work:
    """A statement on its way from the queue to the client."""

    future: Future[Response | None]
    running: RunningStatement
    delivery: Delivery

    def cancel(self, sessions: ChdbSessions) -> None:
        if not self.future.cancel():
            self.delivery.stop()
            self.running.cancel(sessions.execute)


class _Queue:
    """A user's statements, some running in threads and some waiting for one; used in the event loop."""

    def __init__(self, limits: UserLimits) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(limits.running, "clickhouse")
        self._works: set[_Work] = set()

    def submit(self, answer: Callable[[], Response | None], running: RunningStatement, delivery: Delivery) -> _Work:
        if len(self._works) >= self.limits.running + self.limits.waiting:
            raise StatementError(
                f"Code: 202. DB::Exception: {self.limits.running} statements run and {self.limits.waiting} wait: try "
                "again in a moment. (TOO_MANY_SIMULTANEOUS_QUERIES)"
            )
        work = _Work(self._threads.submit(answer), running, delivery)
        self._works.add(work)
        return work

    def forget(self, work: _Work) -> None:
        self._works.discard(work)

    def unfinished(self) -> tuple[_Work, ...]:
        return tuple(self._works)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _stopping_response() -> Response:
    return PlainTextResponse("the front is stopping\n", status_code=503)


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
def running_front(settings: Settings, *, port: int = 0, limits: FrontLimits = LIMITS) -> Iterator[Front]:
    """Run the front in a thread of this process while the block runs.

    Args:
        settings: Names the home whose embedded ClickHouse is served.
        port: On the loopback address; 0 takes a free one.
        limits: What it bears.

    Raises:
        StorageError: Another front or process holds the folder, or the port is taken.
    """
    if settings.clickhouse_url is not None:
        raise StorageError(
            "ClickHouse is a server here (clickhouse_url), and needs no front",
            fix="let programs ask the server itself, or unset ENERGY_IOT_CLICKHOUSE_URL",
        )
    with (
        hold_front(settings.home),
        _bound_socket(port, limits.patience_seconds) as listener,
        _opened(settings) as sessions,
    ):
        passwords = {user: secrets.token_urlsafe(32) for user in (WRITER, READER)}
        front_app = FrontApp(sessions, passwords, limits)
        server = uvicorn.Server(
            uvicorn.Config(
                front_app.app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
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
def _bound_socket(port: int, patience_seconds: float) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux then drops what a client that does not read has left to take
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience_seconds * 1000))
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
