"""Answers of ClickHouse's HTTP interface: whole, streamed as fast as the client reads, or an error."""

import asyncio
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future
from time import monotonic
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Send

from energy_iot.serving.chdb_sessions import CANCELLED, Answer, StatementError
from energy_iot.serving.http_compression import ENCODINGS, compressor

HELD_BYTES: Final = 1024**2  # an answer up to this size is sent whole: an error in it still becomes a status
PIECE_BYTES: Final = 1024**2  # what a client that reads slowly must take in time
SOCKET_TIMEOUT: Final = 209
MEDIA_TYPE: Final = "text/plain; charset=UTF-8"
# HTTP status by error code, as ClickHouse gives them; all others are 500. Ours are 202, 209 and 307.
STATUSES: Final = (
    dict.fromkeys((6, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 70, 72, 117, 158, 386, 456, 457), 400)
    | dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 81, 115, 372), 404)
    | {48: 501, 159: 408, 202: 503, 209: 408, 307: 413, 164: 500, 194: 401, 373: 500, 396: 500, 497: 403, 516: 403}
)


class Delivery:
    """Brings an answer from the thread that makes it to the client, as fast as the client takes it.

    Attributes:
        has_begun: Whether the client has a part of it, so that an error can no longer become a status.
    """

    def __init__(self, request: Request, send: Send, headers: Mapping[str, str], *, patience_seconds: float) -> None:
        """Make one in the event loop.

        Args:
            request: Says which compression the client accepts.
            send: Of ASGI.
            headers: Of the answer, whatever it will be.
            patience_seconds: For the client to take the next piece.
        """
        self.has_begun = False
        self._send, self._headers, self._patience_seconds = send, headers, patience_seconds
        self._encoding = _accepted_encoding(request)
        self._loop = asyncio.get_running_loop()
        self._since = monotonic()
        self._sending: Future[None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Give up, from whatever thread."""
        self._stopped = True
        if self._sending is not None:
            self._sending.cancel()

    def deliver(self, answer: Answer) -> Response | None:
        """Bring the answer, in the thread that makes it; a short one is returned, for the event loop to send.

        Raises:
            StatementError: It failed, was stopped, or the client does not take it.
        """
        compressing = compressor(self._encoding)
        held = bytearray()
        size = 0
        for chunk in answer.chunks:
            held += compressing.compress(chunk)
            size += len(chunk)
            if size > HELD_BYTES:
                break
        else:
            held += compressing.flush()
            return self._whole(bytes(held) if size else b"", answer)
        tag = secrets.token_hex(8)
        self._begin(answer, tag)
        try:
            self._pieces(held)
            for chunk in answer.chunks:
                self._pieces(compressing.compress(chunk))
        except StatementError as error:
            # the client is told in the way of ClickHouse, and the answer stays without its end
            if not self._stopped:
                self._pieces(compressing.compress(_late_error(str(error), tag)) + compressing.flush())
            raise
        self._pieces(compressing.flush())
        self._message({"type": "http.response.body", "body": b"", "more_body": False})
        return None

    def _whole(self, body: bytes, answer: Answer) -> Response:
        headers = self._answer_headers(answer)
        headers["X-ClickHouse-Summary"] = json.dumps(
            {**answer.summary, "elapsed_ns": str(int((monotonic() - self._since) * 1e9))}
        )
        if self._encoding and body:
            headers["Content-Encoding"] = self._encoding
        return Response(body, media_type=MEDIA_TYPE, headers=headers)

    def _begin(self, answer: Answer, tag: str) -> None:
        headers = {**self._answer_headers(answer), "X-ClickHouse-Exception-Tag": tag}
        if self._encoding:
            headers["Content-Encoding"] = self._encoding
        start = StreamingResponse(iter(()), media_type=MEDIA_TYPE, headers=headers)
        self._message({"type": "http.response.start", "status": 200, "headers": start.raw_headers})

    def _answer_headers(self, answer: Answer) -> dict[str, str]:
        return {**self._headers} if answer.format is None else {**self._headers, "X-ClickHouse-Format": answer.format}

    def _pieces(self, data: bytes | bytearray) -> None:
        for piece in _split(data):
            self._message({"type": "http.response.body", "body": piece, "more_body": True})

    def _message(self, message: Message) -> None:
        """Send it in the event loop, and wait until the client's connection has room again."""
        sending: Future[None] = asyncio.run_coroutine_threadsafe(self._in_loop(message), self._loop)
        self._sending = sending
        if self._stopped:
            sending.cancel()
        try:
            sending.result(self._patience_seconds)
        except CancelledError as error:
            raise StatementError(CANCELLED) from error
        except TimeoutError as error:
            self.stop()
            raise StatementError(
                f"Code: 209. DB::Exception: the client has not read for {self._patience_seconds:g} s. (SOCKET_TIMEOUT)"
            ) from error

    async def _in_loop(self, message: Message) -> None:
        self.has_begun = True  # set where it is read, whatever becomes of the thread that waits
        await self._send(message)


def _split(data: bytes | bytearray) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])


def _late_error(text: str, tag: str) -> bytes:
    """What ClickHouse writes at the end of an answer that fails when its status has been sent."""
    told = text.strip().encode()
    return b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (
        tag.encode(), told, len(told) + 1, tag.encode()
    )  # fmt: skip


def error_response(text: str, headers: Mapping[str, str]) -> Response:
    """An error with its code; the text is ClickHouse's."""
    found = re.search(r"Code: (\d+)", text)
    code = int(found[1]) if found else 1002
    return PlainTextResponse(
        f"{text.strip()}\n",
        status_code=STATUSES.get(code, 500),
        headers={
            **headers,
            "X-ClickHouse-Exception-Code": str(code),
            **({"Connection": "close"} if code == SOCKET_TIMEOUT else {}),  # the rest may come at any time
        },
    )


def _accepted_encoding(request: Request) -> str | None:
    if request.query_params.get("enable_http_compression") != "1":
        return None
    accepted = [part.split(";")[0].strip() for part in request.headers.get("Accept-Encoding", "").split(",")]
    return next((name for name in accepted if name in ENCODINGS), None)
