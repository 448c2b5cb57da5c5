"""The front over time: while syncs run, over long answers, and when it is told to stop."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import psutil
import pytest
from clickhouse_connect.driver.client import Client

from energy_iot.pipeline import RunContext
from energy_iot.serving.clickhouse_http import running_front
from energy_iot.serving.front_file import READER, WRITER, find_front
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres
from energy_iot.sync.postgres_to_clickhouse import sync
from tests.front_clients import ENDLESS, LONG, http, raw_request, running_statements
from tests.live_server import serving
from tests.published_marts import METERS, Marts
from tests.waiting import wait_for

pytestmark = pytest.mark.heavy


def test_memory_does_not_grow_with_the_answer(tmp_path: Path) -> None:
    with serving(tmp_path, "clickhouse") as (process, _):
        front = find_front(tmp_path)
        assert front is not None
        used = psutil.Process(process.pid)

        def read(rows: int) -> int:
            with http(front) as client, client.stream("POST", "/", content=f"{LONG} limit {rows}") as answer:
                return sum(len(piece) for piece in answer.iter_raw())

        read(1_000_000)
        before, most = used.memory_info().rss, 0
        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.02):
                most = max(most, used.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert read(14_000_000) > 1_500_000_000
        stop.set()
        watcher.join()
    assert most - before < 400_000_000, "less than a third of the answer"


def test_eight_clients_while_syncs_run(make_context: Callable[..., RunContext], postgres: Postgres) -> None:
    """No error, and each published table is as before a sync or as after it.

    Tables go live one after the other, so a statement over two of them may see one as before and one as after.
    """
    context, marts = make_context(history_days=7), Marts(postgres, 7)
    marts.create()
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(40)]
    query = (
        "select (m.rows, m.kwh), (s.rows, s.kwh, s.versions) from "
        "(select count() as rows, sum(toDecimal128(consumption_kwh, 9)) as kwh from consumption_metrics) as m, "
        "(select count() as rows, sum(toDecimal128(consumption_kwh, 9)) as kwh, "
        "groupUniqArray(scored_at) as versions from anomaly_scores) as s"
    )
    seen: set[tuple[Any, Any]] = set()
    counts = [0] * 8
    stop = threading.Event()

    def publish(generation: int) -> tuple[Any, Any]:
        marts.change([(meter, day) for meter in METERS for day in days], readings=4 + generation)
        with postgres.connect() as connection:  # all rows of a generation carry it
            connection.execute(
                "update marts.mart_anomaly_scores set scored_at = timestamp '2024-01-01' + %s * interval '1 day'",
                (generation,),
            )
        full = replace(context, options=replace(context.options, full_refresh=generation % 2 == 1))
        sync(full)
        with open_clickhouse(context.settings) as client:
            return answer(client)

    def answer(client: Client) -> tuple[Any, Any]:
        (row,) = client.query(query).result_rows
        return row[0], (*row[1][:2], tuple(row[1][2]))

    def ask(number: int) -> None:
        with clickhouse_connect.get_client(dsn=front.address.url(READER), database="energy_analytics") as client:
            while not stop.is_set():
                seen.add(answer(client))
                counts[number] += 1

    with running_front(context.settings) as front, ThreadPoolExecutor(8) as threads:
        states = [publish(0)]
        asking = [threads.submit(ask, number) for number in range(8)]
        try:
            states += [publish(generation) for generation in range(1, 6)]
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert min(counts) > 0
    assert len({state[1] for state in states}) == len(states)
    assert {metrics for metrics, _ in seen} <= {metrics for metrics, _ in states}
    assert {scores for _, scores in seen} <= {scores for _, scores in states}
    assert len({scores for _, scores in seen}) > 2
    places = {metrics: number for number, (metrics, _) in enumerate(states)}
    score_places = {scores: number for number, (_, scores) in enumerate(states)}
    apart = [places[metrics] - score_places[scores] for metrics, scores in seen]
    assert set(apart) <= {-1, 0, 1}


def test_sigterm_ends_statements_and_streams_within_seconds(tmp_path: Path) -> None:
    with serving(tmp_path, "clickhouse") as (process, _):
        front = find_front(tmp_path)
        assert front is not None
        connections = [
            raw_request(front, user, statement) for user in (WRITER, READER) for statement in (ENDLESS, LONG, LONG)
        ]
        wait_for(lambda: len(running_statements(front)) == len(connections), "statements", 20)
        with http(front) as client, client.stream("POST", "/", content=LONG) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            asked = time.monotonic()
            process.terminate()
            with pytest.raises(httpx.TransportError):
                for _ in pieces:
                    pass
        process.wait(30)
        assert time.monotonic() - asked < 10
        for connection in connections:
            connection.close()
    assert find_front(tmp_path) is None
    assert not list(tmp_path.glob("clickhouse_http.json"))
    with open_clickhouse(Settings(home=tmp_path)) as client:  # nobody holds the folder
        assert client.query("select 1").result_rows == [(1,)]
