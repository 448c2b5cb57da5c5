"""The front's answers come in pieces that are the whole, end with their client, and stay within limits."""

import json
from collections.abc import Iterator

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from energy_iot.serving.chdb_sessions import STREAMED_FORMATS, STREAMED_TEXT_FORMATS
from energy_iot.serving.clickhouse_http import LIMITS, running_front
from energy_iot.serving.front_file import READER, WRITER, FrontAddress
from energy_iot.serving.http_answers import HELD_BYTES
from energy_iot.settings import Settings
from tests.front_clients import ENDLESS, LONG, http, raw_request, running_statements
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAddress]:
    with running_front(Settings(home=tmp_path_factory.mktemp("home"))) as front:
        with clickhouse_connect.get_client(dsn=front.address.url(WRITER)) as client:
            client.command(
                "create table readings (n UInt32, meter LowCardinality(String), at DateTime64(6, 'UTC'), "
                "kwh Nullable(Float64), text String, list Array(Nullable(Int16))) engine = MergeTree order by n"
            )
            client.command(
                "insert into readings select number, if(number % 7 = 0, '', concat('m\\t', number % 5)), "
                "toDateTime64(number, 6, 'UTC'), if(number % 3 = 0, null, number / 7), "
                "concat('é\"\\\\\\n', repeat('x', number % 90)), [number % 9, null] from numbers(60000)"
            )
        yield front.address


# --- the pieces are the whole ---------------------------------------------------------------------------------------


def settings_of_blocks(rows: int) -> str:
    return f"settings max_block_size = {rows}, max_threads = 1"


@pytest.mark.parametrize("block_rows", [50, 1000, 65_409])
@pytest.mark.parametrize("answer_format", sorted(STREAMED_FORMATS | STREAMED_TEXT_FORMATS))
def test_a_streamed_answer_is_the_whole_one(address: FrontAddress, answer_format: str, block_rows: int) -> None:
    statement = f"select * from readings order by n {settings_of_blocks(block_rows)} format {answer_format}"
    with http(address, WRITER) as client:
        streamed = client.post("/", content=statement)
        whole = client.post("/", content=f"/* a comment */ {statement}")  # such statements are not streamed
    assert len(whole.content) > HELD_BYTES
    assert streamed.content == whole.content
    assert "X-ClickHouse-Exception-Tag" in streamed.headers


@pytest.mark.parametrize("answer_format", sorted(STREAMED_FORMATS | STREAMED_TEXT_FORMATS))
def test_readers_get_the_same(address: FrontAddress, answer_format: str) -> None:
    statement = f"select * from readings order by n format {answer_format}"
    with http(address) as reader, http(address, WRITER) as writer:
        assert reader.post("/", content=statement).content == writer.post("/", content=f"{statement} --").content


WITH_MORE_THAN_ROWS = {
    "select n % 3 as k, count() from readings group by k with totals order by k format CSV": (
        b"0,20000\n1,20000\n2,20000\n\n0,60000\n"
    ),
    "select n from readings order by n limit 3 format TSVWithNames": b"n\n0\n1\n2\n",
    "select n from readings order by n limit 3 -- format Native": b"0\n1\n2\n",
    "select n from readings order by n limit 2 format JSONEachRow -- as objects": b'{"n":0}\n{"n":1}\n',
    "select n as `-- format CSV`, 'x /* format CSV' from readings where n = 7": b"7\tx /* format CSV\n",
}


@pytest.mark.parametrize("statement", WITH_MORE_THAN_ROWS)
@pytest.mark.parametrize("user", [WRITER, READER])
def test_what_is_more_than_rows_is_there(address: FrontAddress, statement: str, user: str) -> None:
    with http(address, user) as client:
        assert client.post("/", content=statement).content == WITH_MORE_THAN_ROWS[statement]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("extremes", b"0\n1\n\n0\n1\n"), ("output_format_json_array_of_rows", b'[\n{"n":0},\n{"n":1}\n]\n')],
)
def test_settings_that_add_to_the_rows(address: FrontAddress, setting: str, expected: bytes) -> None:
    """Also with blocks of one row: each would be made an answer of its own."""
    answer_format = "JSONEachRow" if "json" in setting else "TSV"
    statement = f"select n from readings order by n limit 2 {settings_of_blocks(1)}"
    with http(address, WRITER) as client:
        for parameters, text in (
            ({setting: "1"}, f"{statement} format {answer_format}"),
            ({}, f"{statement}, {setting} = 1 format {answer_format}"),
        ):
            assert client.post("/", params=parameters, content=text).content == expected
        client.post("/?session_id=rows", content=f"set {setting} = 1")
        assert client.post("/?session_id=rows", content=f"{statement} format {answer_format}").content == expected


def test_answers_that_are_not_streamed_are_whole(address: FrontAddress) -> None:
    with http(address) as client:
        answer = client.post("/", content="select * from readings order by n format JSON")
    assert len(json.loads(answer.content)["data"]) == 60_000


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_all_of_a_long_answer_arrives(address: FrontAddress, compress: str | bool) -> None:
    query = "select n, text from readings order by n"
    with clickhouse_connect.get_client(dsn=address.url(READER), compress=compress) as client:
        rows = client.query(query).result_rows
        with client.query_row_block_stream(query) as blocks:
            assert sum(len(block) for block in blocks) == len(rows) == 60_000
        assert rows[59_999][0] == 59_999


def test_a_short_answer_comes_with_its_figures(address: FrontAddress) -> None:
    with http(address) as client:
        answer = client.post("/", content="select n from readings order by n limit 5 format Native")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "5"
    assert int(answer.headers["Content-Length"]) == len(answer.content)


# --- errors in the middle -------------------------------------------------------------------------------------------

LATE_ERROR = "select throwIf(number = 900000, 'too late') as a, number as b from numbers(1000000)"


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_half_an_answer_is_never_taken_for_a_whole_one(address: FrontAddress, compress: str | bool) -> None:
    with clickhouse_connect.get_client(dsn=address.url(READER), compress=compress) as client:
        with pytest.raises(ClickHouseError, match="too late"):
            assert client.query(LATE_ERROR).row_count
        with pytest.raises(ClickHouseError, match="too late"), client.query_row_block_stream(LATE_ERROR) as blocks:
            for _ in blocks:
                pass
        assert client.query("select 1").result_rows == [(1,)]


@pytest.mark.parametrize("answer_format", ["CSV", "JSONEachRow"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate", "br", "zstd"])
def test_other_clients_see_that_the_end_is_missing(address: FrontAddress, answer_format: str, encoding: str) -> None:
    pieces: list[bytes] = []
    content, headers = f"{LATE_ERROR} format {answer_format}", {"Accept-Encoding": encoding}
    with (
        http(address, WRITER) as client,
        client.stream("POST", "/?enable_http_compression=1", content=content, headers=headers) as answer,
    ):
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        with pytest.raises(httpx.RemoteProtocolError):
            pieces.extend(answer.iter_raw())
    assert pieces
    if encoding == "identity":
        tag = answer.headers["X-ClickHouse-Exception-Tag"]
        assert f"__exception__\r\n{tag}\r\nCode: 395." in b"".join(pieces).decode()


def test_an_early_error_has_its_status(address: FrontAddress) -> None:
    with http(address) as client:
        answer = client.post("/", content="select throwIf(number = 100, 'early') from numbers(200)")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "395")


# --- clients that go away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [WRITER, READER])
@pytest.mark.parametrize(
    "statement", [ENDLESS, LONG, f"{LONG} format JSON", "select number from numbers(1000000000) order by rand()"]
)
def test_a_statement_ends_with_its_client(address: FrontAddress, statement: str, user: str) -> None:
    connection = raw_request(address, user, statement)
    wait_for(lambda: running_statements(address), "statement", 10)
    connection.close()
    wait_for(lambda: not running_statements(address), "end of the statement", 5)


def test_an_insert_ends_with_its_client(address: FrontAddress) -> None:
    with http(address, WRITER) as client:
        client.post("/", content="create or replace table filled (n UInt64) engine = MergeTree order by n")
        connection = raw_request(address, WRITER, "insert into filled select number from numbers(1000000000000)")
        wait_for(lambda: running_statements(address), "statement", 10)
        connection.close()
        wait_for(lambda: not running_statements(address), "end of the statement", 5)
        client.post("/", content="drop table filled").raise_for_status()


def test_clients_that_go_away_leave_room_for_others(address: FrontAddress) -> None:
    """More of them than there are threads."""
    for _ in range(2):
        gone = [raw_request(address, READER, LONG) for _ in range(LIMITS.dashboards.running + 4)]
        wait_for(lambda: len(running_statements(address)) >= LIMITS.dashboards.running, "statements", 20)
        for connection in gone:
            connection.close()
    with http(address) as client:
        assert client.post("/", content="select 1", timeout=10).text == "1\n"
    wait_for(lambda: not running_statements(address), "end of the statements", 10)


def test_a_session_is_free_when_its_client_is_gone(address: FrontAddress) -> None:
    with http(address, WRITER) as client:
        with client.stream("POST", "/?session_id=mine&max_block_size=1000", content=f"{LONG} format Native") as answer:
            pieces = answer.iter_raw()  # kept: the client hangs up when it is collected
            next(pieces)
            assert client.post("/?session_id=mine", content="select 1").headers["X-ClickHouse-Exception-Code"] == "373"
        wait_for(lambda: client.post("/?session_id=mine", content="select 1").is_success, "free session", 5)
        answer = client.post("/?session_id=mine", content="select getSetting('max_block_size') != 1000")
        assert answer.text == "1\n"


# --- the engine's own limit ------------------------------------------------------------------------------------------


def test_the_longest_statement(address: FrontAddress) -> None:
    with http(address) as client:
        answer = client.post("/", content=f"select '{'x' * 300_000}'")
    assert answer.status_code == 400
    assert "Max query size exceeded" in answer.text
    assert len(answer.text) < 2000
