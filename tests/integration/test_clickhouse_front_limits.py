"""What the front refuses: requests that are too long, too many, or never end, and clients that do not read."""

import gzip
import zlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from energy_iot.serving.clickhouse_http import FrontLimits, UserLimits, running_front
from energy_iot.serving.front_file import READER, WRITER, FrontAddress
from energy_iot.settings import Settings
from tests.front_clients import ENDLESS, LONG, http, raw_request, running_statements
from tests.waiting import wait_for

SMALL = FrontLimits(
    pipeline=UserLimits(running=2, waiting=2, longest_body=100_000),
    dashboards=UserLimits(running=2, waiting=1, longest_body=10_000),
    patience_seconds=1,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAddress]:
    """One that bears little."""
    with running_front(Settings(home=tmp_path_factory.mktemp("small")), limits=SMALL) as front:
        yield front.address


@pytest.mark.parametrize(("user", "longest"), [(WRITER, 100_000), (READER, 10_000)])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_the_longest_request(small: FrontAddress, user: str, longest: int, encoding: str) -> None:
    packed = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    with http(small, user) as client:
        for size in (longest, longest + 1):
            body = b"select 1".ljust(size)
            answer = client.post("/", content=packed(body), headers={"Content-Encoding": encoding})
            assert answer.text == "1\n" if size == longest else answer.status_code == 413
    assert answer.headers["X-ClickHouse-Exception-Code"] == "307"
    assert str(longest) in answer.text


def test_statements_at_once(small: FrontAddress) -> None:
    """Two run, one waits, the next is refused; the other user is not kept waiting."""
    holding = [raw_request(small, READER, ENDLESS) for _ in range(3)]
    wait_for(lambda: len(running_statements(small)) == 2, "two statements", 10)
    with http(small) as reader:
        refused = wait_for(lambda: _answered(reader, refused=True), "refusal", 10)
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
    with http(small, WRITER) as writer:
        assert writer.post("/", content="select 1", timeout=5).text == "1\n"
    for connection in holding:
        connection.close()
    wait_for(lambda: not running_statements(small), "end of the statements", 5)
    with http(small) as reader:
        assert wait_for(lambda: _answered(reader, refused=False), "answer", 5).text == "1\n"


def _answered(client: httpx.Client, *, refused: bool) -> httpx.Response | None:
    """An answer of the kind that is waited for."""
    answer = client.post("/", content="select 1", timeout=20)
    return answer if answer.is_error == refused else None


@pytest.mark.parametrize("statement", [LONG, f"{LONG.replace('1000000000', '500000')} format JSON"])
def test_clients_that_never_read_give_way(small: FrontAddress, statement: str) -> None:
    """Also those whose answer is complete, and waits to be taken."""
    holding = [raw_request(small, READER, statement) for _ in range(SMALL.dashboards.running)]
    with http(small) as reader:
        assert wait_for(lambda: _answered(reader, refused=False), "answer", 20).text == "1\n"
    wait_for(lambda: not running_statements(small), "end of the statements", 10)
    clients = {connection.getsockname() for connection in holding}
    wait_for(lambda: not clients & {end.raddr for end in psutil.Process().net_connections()}, "end of the sockets", 20)
    for connection in holding:
        connection.close()


def test_a_client_that_never_finishes_its_request(small: FrontAddress) -> None:
    with raw_request(small, READER, "select 1", declared_bytes=9) as connection:
        connection.settimeout(10)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"SOCKET_TIMEOUT" in answer
