"""Requests of ClickHouse's HTTP interface: who asks, and for what."""

import asyncio
import base64
import binascii
from email import message_from_bytes
from email.policy import HTTP
from typing import Final

from starlette.requests import Request

from energy_iot.serving.chdb_sessions import Statement, StatementError
from energy_iot.serving.http_compression import decompressed

LONGEST_SESSION_SECONDS: Final = 3600
# Parameters of the interface; all other parameters of a request are settings.
INTERFACE_PARAMETERS: Final = frozenset(
    {"query", "database", "default_format", "session_id", "session_timeout", "session_check", "query_id", "user",
     "password", "quota_key", "role", "wait_end_of_query", "buffer_size", "enable_http_compression", "stacktrace",
     "send_progress_in_http_headers", "http_headers_progress_interval_ms", "client_protocol_version", "compress",
     "decompress", "cancel_http_readonly_queries_on_client_close", "add_http_cors_header"}
)  # fmt: skip
AUTHENTICATION_FAILED: Final = (
    "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no such user. "
    "(AUTHENTICATION_FAILED)"
)


def read_credentials(request: Request) -> tuple[str, str]:
    """User and password, in any of the ways that ClickHouse takes them.

    Raises:
        StatementError: They are no credentials.
    """
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


async def read_body(request: Request, *, longest: int, patience_seconds: float) -> bytes:
    """The body, as it came.

    Args:
        request: Of which nothing has been read.
        longest: Bytes.
        patience_seconds: For the next piece of it.

    Raises:
        starlette.requests.ClientDisconnect: The client went away.
        StatementError: It is too long, or does not come.
    """
    body = bytearray()
    pieces = request.stream()
    try:
        while True:
            async with asyncio.timeout(patience_seconds):
                body += await anext(pieces)
            if len(body) > longest:
                raise StatementError(
                    f"Code: 307. DB::Exception: the request is longer than {longest} bytes. (TOO_MANY_BYTES)"
                )
    except StopAsyncIteration:
        return bytes(body)
    except TimeoutError as error:
        raise StatementError(
            f"Code: 209. DB::Exception: the rest of the request did not come within {patience_seconds:g} s. "
            "(SOCKET_TIMEOUT)"
        ) from error


def read_statement(request: Request, body: bytes, *, longest: int) -> Statement:
    """What the request asks for.

    Args:
        request: Whose body has been read.
        body: As it came.
        longest: Bytes that the body may unpack to.

    Raises:
        StatementError: The body is broken, or asks for what is not served here.
    """
    body = decompressed(body, request.headers.get("Content-Encoding", "identity"), longest)
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
