"""The loopback front speaks ClickHouse's HTTP interface, and lets readers read only."""

import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import clickhouse_connect
import httpx
import pyarrow as pa
import pytest
import sqlalchemy
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.serving.clickhouse_http import running_front
from energy_iot.serving.front_file import READER, WRITER, FrontAddress
from energy_iot.serving.reader_rights import READER_LIMITS
from energy_iot.settings import Settings
from tests.front_clients import ENDLESS


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAddress]:
    with running_front(Settings(home=tmp_path_factory.mktemp("home"))) as front:
        with clickhouse_connect.get_client(dsn=front.address.url(WRITER)) as client:
            client.command("create table readings (meter String, day Date, kwh Float64) engine = MergeTree order by ()")
            client.command("insert into readings values ('m1', '2024-01-01', 1.5), ('m2', '2024-01-02', 2.5)")
        yield front.address


@pytest.fixture
def writer(address: FrontAddress) -> Iterator[Client]:
    with clickhouse_connect.get_client(dsn=address.url(WRITER)) as client:
        yield client


@pytest.fixture
def reader(address: FrontAddress) -> Iterator[Client]:
    with clickhouse_connect.get_client(dsn=address.url(READER)) as client:
        yield client


@pytest.fixture
def http(address: FrontAddress) -> Iterator[httpx.Client]:
    """Plain HTTP with all rights."""
    with httpx.Client(base_url=f"http://127.0.0.1:{address.port}", auth=(WRITER, address.passwords[WRITER])) as client:
        yield client


# --- values ---------------------------------------------------------------------------------------------------------

TYPES = {
    "Int8": -128, "UInt64": 2**64 - 1, "Int64": -(2**63), "Int32": 7, "Float64": 1.5, "Float32": 0.5, "Bool": True,
    "String": "é \t\n\\ ' \0 🌍", "LowCardinality(String)": "x", "LowCardinality(Nullable(String))": None,
    "Nullable(Float64)": None, "Date": date(2024, 2, 29), "Date32": date(1925, 1, 1),
    "DateTime('UTC')": datetime(2024, 1, 1, 12), "DateTime64(6, 'UTC')": datetime(2024, 1, 1, 12, 0, 0, 123456),
    "Decimal(18, 4)": Decimal("12345.6789"), "Array(UInt8)": [1, 2, 3], "Tuple(Int32, String)": (1, "a"),
    "Map(String, Int32)": {"a": 1}, "UUID": UUID(int=5), "FixedString(3)": b"abc", "Enum8('a' = 1, 'b' = 2)": "b",
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_values_of_all_types_come_back(writer: Client, kind: str) -> None:
    writer.command("drop table if exists one_value")
    writer.command(f"create table one_value (value {kind}) engine = Memory")
    written = writer.insert("one_value", [[TYPES[kind]]], column_names=["value"]).written_rows
    assert (written, writer.query("select value from one_value").result_rows) == (1, [(TYPES[kind],)])


def test_arrow_in_and_out(writer: Client) -> None:
    table = pa.table({"meter": ["a", "b", None], "kwh": [1.0, None, 3.0], "n": pa.array([1, 2, 3], pa.int64())})
    writer.command("drop table if exists arrow_rows")
    writer.command(
        "create table arrow_rows (meter Nullable(String), kwh Nullable(Float64), n Int64) engine = MergeTree order by n"
    )
    writer.insert_arrow("arrow_rows", table)
    assert writer.query_arrow("select * from arrow_rows order by n").to_pylist() == table.to_pylist()


@hypothesis_settings(max_examples=15)
@given(rows=st.lists(st.tuples(st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), min_size=1))
def test_any_rows_come_back(address: FrontAddress, rows: list[tuple[str, int, float]]) -> None:
    with clickhouse_connect.get_client(dsn=address.url(WRITER)) as writer:
        writer.command("create or replace table any_rows (s String, i Int64, f Float64) engine = Memory")
        writer.insert("any_rows", rows, column_names=["s", "i", "f"])
        assert sorted(writer.query("select * from any_rows").result_rows) == sorted(rows)


@hypothesis_settings(max_examples=15)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@pytest.mark.parametrize("user", [WRITER, READER])
def test_any_parameter_arrives(address: FrontAddress, user: str, text: str) -> None:
    """Also for readers, whose statements are looked at: what is a value is no statement."""
    with clickhouse_connect.get_client(dsn=address.url(user)) as client:
        for query in ("select {text:String}", "select %(text)s"):
            assert client.query(query, parameters={"text": text}).result_rows == [(text,)]


def test_a_parameter_longer_than_a_url_arrives(writer: Client) -> None:
    assert writer.query("select length({text:String})", parameters={"text": "x" * 100_000}).result_rows == [(100_000,)]


def test_an_answer_without_rows_has_columns(reader: Client) -> None:
    answer = reader.query("select meter, kwh from readings where kwh > {least:Float64}", parameters={"least": 1e9})
    assert (answer.column_names, answer.result_rows) == (("meter", "kwh"), [])
    assert [kind.name for kind in answer.column_types] == ["String", "Float64"]


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_compression_both_ways(address: FrontAddress, compress: str | bool) -> None:
    with clickhouse_connect.get_client(dsn=address.url(WRITER), compress=compress) as client:
        client.command("create or replace table squeezed (n UInt64) engine = Memory")
        client.insert("squeezed", [[number] for number in range(10_000)], column_names=["n"])
        assert client.query("select n from squeezed").result_rows == [(number,) for number in range(10_000)]


def test_deflate_in_and_out(http: httpx.Client) -> None:
    answer = http.post(
        "/?enable_http_compression=1",
        content=zlib.compress(b"select 'x' from numbers(3) format CSV"),
        headers={"Content-Encoding": "deflate", "Accept-Encoding": "deflate"},
    )
    assert answer.headers["Content-Encoding"] == "deflate"
    assert answer.text == '"x"\n"x"\n"x"\n'


@pytest.mark.parametrize("encoding", ["gzip", "lz4", "deflate", "zstd", "br"])
def test_a_body_that_is_not_compressed_as_it_says(http: httpx.Client, encoding: str) -> None:
    answer = http.post("/", content=b"select 1", headers={"Content-Encoding": encoding})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "354"


def test_formats_and_headers(http: httpx.Client) -> None:
    answer = http.post("/?query_id=mine&default_format=JSONEachRow", content="select 1 as x")
    assert answer.json() == {"x": 1}
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert "elapsed_ns" in answer.headers["X-ClickHouse-Summary"]
    assert http.post("/", content="select 1 as x format CSVWithNames").text == '"x"\n1\n'
    assert "X-ClickHouse-Format" not in http.post("/", content="drop table if exists nothing").headers


def test_inserts_by_hand(http: httpx.Client) -> None:
    http.post("/", content="create or replace table by_hand (a Int32, b String) engine = Memory").raise_for_status()
    inserts = (
        ("", "insert into by_hand values (1, 'format CSV')"),
        ("insert into by_hand (a, b) format CSV", "2,two\n"),
        ("", "insert into by_hand format JSONEachRow\n" + '{"a": 3, "b": "three"}'),
        ("", "INSERT INTO by_hand SELECT 4, 'four'"),
    )
    for query, body in inserts:
        http.post("/", params={"query": query} if query else {}, content=body).raise_for_status()
    rows = http.post("/", content="select a, b from by_hand order by a").text.splitlines()
    assert rows == ["1\tformat CSV", "2\ttwo", "3\tthree", "4\tfour"]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "code", "status"),
    [
        ("select 1 +", 62, 400),
        ("select nope", 47, 404),
        ("select * from nope", 60, 404),
        ("select * from nope.nope", 81, 404),
        ("select nope()", 46, 404),
        ("select throwIf(1)", 395, 500),
        ("select 1 format Nope", 73, 404),
        ("insert into readings format Native\ngarbage", None, None),
        ("select 1 settings nope = 1", 115, 404),
    ],
)
def test_errors_carry_code_and_status(http: httpx.Client, statement: str, code: int | None, status: int | None) -> None:
    answer = http.post("/", content=statement)
    assert answer.is_error
    assert "Code: " in answer.text
    if code is not None:
        assert (answer.headers["X-ClickHouse-Exception-Code"], answer.status_code) == (str(code), status)
    assert http.post("/", content="select 1").text == "1\n"


def test_what_is_not_served_says_so(http: httpx.Client) -> None:
    assert http.post("/?compress=1", content="select 1").status_code == 501
    assert http.post("/", content="select 1", headers={"Content-Encoding": "snappy"}).status_code == 501
    external = http.post("/?query=select+1", files={"rows": ("rows.csv", b"1,2")})
    assert external.status_code == 501
    assert http.post("/", content=b"select '\xff'").status_code == 400
    for parameters, code in (("session_id=a&session_check=1", "372"), ("no such=1", "115")):
        answer = http.post(f"/?{parameters}", content="select 1")
        assert answer.headers["X-ClickHouse-Exception-Code"] == code


# --- sessions and settings ------------------------------------------------------------------------------------------


def test_a_session_keeps_what_it_made(writer: Client, address: FrontAddress) -> None:
    writer.command("create temporary table mine (x UInt8)")
    writer.command("insert into mine values (1), (2)")
    writer.command("set max_block_size = 1234")
    assert writer.query("select sum(x), getSetting('max_block_size') from mine").result_rows == [(3, 1234)]
    with clickhouse_connect.get_client(dsn=address.url(WRITER)) as other:
        assert other.query("select getSetting('max_block_size') <> 1234").result_rows == [(True,)]
        with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
            other.query("select * from mine")


def test_settings_of_a_statement_end_with_it(writer: Client) -> None:
    asked = "select getSetting('max_threads'), getSetting('log_comment')"
    before = writer.query(asked).result_rows
    assert writer.query(asked, settings={"max_threads": 1, "log_comment": "it's"}).result_rows == [(1, "it's")]
    with pytest.raises(DatabaseError):
        writer.query("select throwIf(1)", settings={"max_threads": 1})
    assert writer.query(asked).result_rows == before


def test_statements_of_one_session_at_once_are_refused(http: httpx.Client, address: FrontAddress) -> None:
    """As in ClickHouse; a session would mix up what each of them sets."""
    slow = "/?session_id=shared&max_execution_time=20"

    def run() -> httpx.Response:
        with httpx.Client(base_url=http.base_url, auth=http.auth, timeout=30) as client:
            return client.post(slow, content=ENDLESS)

    with ThreadPoolExecutor() as threads:
        running = threads.submit(run)
        seen = f"select count() from system.processes where query like '%{ENDLESS[-30:]}' and query_id != queryID()"
        while http.post("/", content=seen).text == "0\n":
            assert not running.done()
        answer = http.post("/?session_id=shared", content="select 1")
        assert answer.headers["X-ClickHouse-Exception-Code"] == "373"
        http.post("/", content="kill query where query like '%sipHash64(number)%' and query_id != queryID() sync")
        assert running.result().headers["X-ClickHouse-Exception-Code"] == "394"


def test_an_idle_session_ends(http: httpx.Client) -> None:
    make = http.post("/?session_id=short&session_timeout=0", content="create temporary table gone (x UInt8)")
    make.raise_for_status()
    assert http.post("/?session_id=short", content="select * from gone").status_code == 404


def test_eight_clients_at_once(address: FrontAddress) -> None:
    def work(number: int) -> list[tuple[int, int]]:
        with clickhouse_connect.get_client(dsn=address.url(WRITER)) as client:
            client.command(f"create or replace table at_once_{number} (n UInt32) engine = MergeTree order by n")
            seen = []
            for turn in range(5):
                client.insert(f"at_once_{number}", [[turn * 100 + row] for row in range(100)], column_names=["n"])
                seen += client.query(f"select count(), max(n) from at_once_{number}").result_rows
            return seen

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(work, range(8)))
    assert results == [[(100 * turn, 100 * turn - 1) for turn in range(1, 6)]] * 8


# --- who may do what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [WRITER, READER, "default", "", "nobody"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_comes_in_without_the_password(address: FrontAddress, user: str, password: str) -> None:
    where = f"http://127.0.0.1:{address.port}/"
    for answer in (
        httpx.post(where, content="select 1", auth=(user, password)),
        httpx.post(where, content="select 1", params={"user": user, "password": password}),
        httpx.post(where, content="select 1", headers={"X-ClickHouse-User": user, "X-ClickHouse-Key": password}),
    ):
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
    assert httpx.post(where, content="select 1", headers={"Authorization": "Basic !"}).status_code == 403


def test_the_password_may_come_in_all_usual_ways(address: FrontAddress) -> None:
    where, password = f"http://127.0.0.1:{address.port}/", address.passwords[READER]
    for answer in (
        httpx.get(where, params={"query": "select 1", "user": READER, "password": password}),
        httpx.post(where, content="select 1", headers={"X-ClickHouse-User": READER, "X-ClickHouse-Key": password}),
        httpx.post(where, content="select 1", auth=(READER, password)),
    ):
        assert answer.text == "1\n"
    assert httpx.get(f"{where}ping").text == "Ok.\n"


def test_get_reads_only(http: httpx.Client) -> None:
    """What a link or an image address can ask for must not change anything."""
    assert http.get("/", params={"query": "drop table readings"}).status_code == 403
    assert http.get("/", params={"query": "select count() from readings"}).text == "2\n"


ALLOWED = (
    "select meter, sum(kwh) from readings group by meter order by meter",
    "with totals as (select sum(kwh) as kwh from readings) select * from totals",
    "select count() from readings where meter = 'file(''x'') into outfile; drop table readings'",
    "select sum(kwh) / count() as `sum(kwh) / file` from readings",
    "(select 1) union all (select 2) -- drop table readings",
    "select number from numbers(3)",
    "show tables", "show databases", "show create table readings", "describe table readings", "exists table readings",
    "explain select * from readings", "select name from system.columns where table = 'readings'",
    "select formatDateTime(day, '%Y') from readings", "select toMonth(day), uniq(meter) from readings group by 1",
)  # fmt: skip


@pytest.mark.parametrize("statement", ALLOWED)
def test_readers_read(reader: Client, statement: str) -> None:
    reader.command(statement)


REFUSED = (
    # writing
    "insert into readings values ('x', '2024-01-01', 1)", "drop table readings", "truncate table readings",
    "alter table readings delete where 1", "create table mine (x Int8) engine = Memory", "optimize table readings",
    "create temporary table mine (x Int8)", "rename table readings to mine", "create user x", "system shutdown",
    "kill query where 1", "backup table readings to Disk('default', 'x')", "select 1 parallel with drop table readings",
    "insert into function file('/tmp/written.csv', 'CSV', 'x Int8') values (1)", "select 1 into outfile '{file}.out'",
    "explain ast select 1 into outfile '{file}.out'", "select 1; drop table readings", "use system",
    # files and addresses
    "select file('{file}')", "select `file`('{file}')", "select fi\\x6ce('{file}')", "select `fi\\x6ce`('{file}')",
    "select /**/ file -- x\n ('{file}')", "select “file”('{file}')", "select * apply file from (select '{file}' as x)",
    "select columns('x') apply(file) from (select '{file}' as x)", "select arrayMap(x -> file(x), ['{file}'])",
    "select * from file('{file}', 'CSV')", "describe file('{file}', 'CSV')", "describe table file('{file}')",
    "select * from `{file}`", "select * from default.`{file}`", "describe table default.`{file}`",
    "exists table default.`{file}`", "show columns from `{file}` from default",
    "select * from url('http://127.0.0.1:1/x.csv')", "describe url('http://127.0.0.1:1/x.csv')",
    "select * from s3('http://127.0.0.1:1/bucket/x.csv')", "describe s3('http://127.0.0.1:1/bucket/x.csv')",
    "select * from remote('127.0.0.1:1', system.one)", "select * from executable('id', 'TSV', 'x String')",
    "select * from postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')", "select * from python('os')",
    "select * from sqlite('{file}', 't')", "select * from filesystem('/etc')", "select * from eval('select 1')",
    "select 1 where 1 in file('{file}')", "explain select * from url('http://127.0.0.1:1/x.csv')",
    "select aiGenerate('x')", "select hasColumnInTable('default', '{file}', 'secret')",
    # limits
    "set readonly = 0", "set max_execution_time = 0", "select 1 settings readonly = 0",
    "select 1 settings max_execution_time = 0", "select sleep(3)", "", "file('{file}')",
)  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED)
def test_readers_do_nothing_else(
    address: FrontAddress, http: httpx.Client, tmp_path_factory: pytest.TempPathFactory, statement: str
) -> None:
    file = tmp_path_factory.mktemp("private") / "private.csv"
    file.write_text("secret,b\n1,2\n")
    answer = httpx.post(
        http.base_url, content=statement.replace("{file}", str(file)), auth=(READER, address.passwords[READER])
    )
    assert answer.is_error
    assert "secret" not in answer.text.replace(str(file), "").replace("'secret'", "")
    assert [path.name for path in file.parent.iterdir()] == ["private.csv"]
    assert http.post("/", content="select count(), sum(kwh) from readings").text == "2\t4\n"


def test_parameters_do_not_lead_readers_elsewhere(address: FrontAddress) -> None:
    statements = (
        "select {name:Identifier}('/etc/hostname')",
        "select * from {name:Identifier}",
        "describe table {name:Identifier}",
        "exists table {name:Identifier}",
    )
    for number, statement in enumerate(statements):
        answer = httpx.post(
            f"http://127.0.0.1:{address.port}/",
            params={"param_name": "/etc/hostname" if number else "file"},
            content=statement,
            auth=(READER, address.passwords[READER]),
        )
        assert answer.is_error


def test_readers_settings_may_lower_limits_only(address: FrontAddress) -> None:
    def post(**settings: object) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{address.port}/",
            params=settings,
            content="select getSetting('max_execution_time'), getSetting('readonly')",
            auth=(READER, address.passwords[READER]),
        )

    assert post().text == f"{READER_LIMITS['max_execution_time']}\t1\n"
    assert post(max_execution_time=5, output_format_json_quote_64bit_integers=0).text == "5\t1\n"
    for name, value in (
        ("max_execution_time", 0),
        ("max_execution_time", 61),
        ("readonly", 0),
        ("max_memory_usage", "1e99"),
    ):
        assert post(**{name: value}).headers["X-ClickHouse-Exception-Code"] == "497"


def test_readers_leave_nothing_behind(address: FrontAddress) -> None:
    """A session would carry one reader's USE to the next."""
    with clickhouse_connect.get_client(dsn=address.url(READER), session_id="same") as reader:
        errors: list[Exception] = []

        def read() -> None:
            try:
                with clickhouse_connect.get_client(dsn=address.url(READER), session_id="same") as client:
                    client.query("select count() from readings")
            except ClickHouseError as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        reader.query("select count() from readings")
        for thread in threads:
            thread.join()
    assert not errors


def test_sqlalchemy_reads_and_reflects(address: FrontAddress) -> None:
    """As Superset does."""
    engine = sqlalchemy.create_engine(address.url(READER).replace("http:", "clickhousedb:") + "/energy_analytics")
    with engine.connect() as connection:
        rows = connection.execute(
            sqlalchemy.text("select meter, kwh from readings where day > :day"), {"day": "2024-01-01"}
        )
        assert rows.fetchall() == [("m2", 2.5)]
    inspector = sqlalchemy.inspect(engine)
    assert "readings" in inspector.get_table_names(schema="energy_analytics")
    assert [column["name"] for column in inspector.get_columns("readings", schema="energy_analytics")] == [
        "meter",
        "day",
        "kwh",
    ]
    engine.dispose()


def test_tables_are_found_in_the_named_database(reader: Client) -> None:
    assert reader.query("select currentDatabase()").result_rows == [("energy_analytics",)]
    reader.database = "system"
    assert reader.query("select currentDatabase(), count() from one").result_rows == [("system", 1)]


def test_long_statements_end_in_time(http: httpx.Client) -> None:
    answer = http.post("/?max_execution_time=1", content=ENDLESS, timeout=30)
    assert (answer.headers["X-ClickHouse-Exception-Code"], answer.status_code) == ("159", 408)
