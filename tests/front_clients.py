"""Clients of the ClickHouse front that behave well, and such that do not."""

import socket
from typing import Final

import httpx

from energy_iot.serving.front_file import READER, WRITER, FrontAddress

ENDLESS: Final = "select count() from numbers(1000000000000) where sipHash64(number) = 1"
LONG: Final = "select number, repeat('x', 100) as text from numbers(1000000000)"


def http(address: FrontAddress, user: str = READER) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{address.port}", auth=(user, address.passwords[user]), timeout=60)


def running_statements(address: FrontAddress) -> list[str]:
    with http(address, WRITER) as client:
        answer = client.post("/", content="select query from system.processes where query_id != queryID()")
        return answer.raise_for_status().text.splitlines()


def raw_request(
    address: FrontAddress, user: str, statement: str, *, declared_bytes: int | None = None
) -> socket.socket:
    """A connection that has sent a statement, or only a part of the request's body, and has read nothing."""
    connection = socket.create_connection(("127.0.0.1", address.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = statement.encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {address.passwords[user]}\r\n"
        f"Content-Length: {declared_bytes or len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection
