"""A real Superset on a real fleet: what it shows, in a browser and by its interface, and what analysts cannot reach."""

import io
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from zipfile import ZipFile

import httpx
import pytest
import yaml
from playwright.sync_api import Browser, Page, Request

from energy_iot.ml.rank import read_ranking
from energy_iot.serving.front_file import find_front
from energy_iot.serving.superset_bundle import LANGUAGES, make_bundle
from energy_iot.serving.superset_client import export_dashboards, list_all, logged_in
from energy_iot.serving.superset_server import ADMIN, ANALYST, SECRETS_FILE, STATE_FILE, superset_home
from energy_iot.simulation.fleet import generate
from energy_iot.storage.postgres import open_postgres
from tests.chromium import CHROMIUM, NO_CHROMIUM, running_chromium
from tests.live_server import command, is_alive, processes_of
from tests.live_superset import (
    INSTALLED,
    NOT_INSTALLED,
    LiveSuperset,
    blank_charts,
    live_superset,
    log_in,
    new_page,
    open_dashboard,
    wait_until_drawn,
)

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.xdist_group("superset"),
    pytest.mark.skipif(not INSTALLED, reason=NOT_INSTALLED),
]

METERS, DAYS = 40, 70
SLUGS = [
    document["slug"]
    for language in LANGUAGES
    for name, document in make_bundle(language).items()
    if name.startswith("dashboards/")
]
# What differs from one Superset to another, and from one export to the next.
NOISE = {
    "chartId",
    "chartsInScope",
    "chart_configuration",
    "dashboards",
    "datasource",
    "global_chart_configuration",
    "id",
}
NOISE |= {"slice_id", "timestamp"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a small fleet with its network was run."""
    folder = tmp_path_factory.mktemp("superset")
    fleet = generate(folder / "data", meters=METERS, days=DAYS, seed=4, interval_minutes=60, theft_share=0.1)
    files = (fleet.readings, fleet.meters, fleet.network_nodes, fleet.network_readings, fleet.outages)
    home = folder / "home"
    done = subprocess.run(command(home, "run", *files), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def superset(home: Path) -> Iterator[LiveSuperset]:
    with live_superset(home) as live:
        yield live


@pytest.fixture(scope="module")
def admin(superset: LiveSuperset) -> Iterator[httpx.Client]:
    with logged_in(superset.address) as client:
        yield client


@pytest.fixture(scope="module")
def analyst(superset: LiveSuperset) -> Iterator[httpx.Client]:
    with logged_in(superset.address, ANALYST) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as started:
        yield started


def test_it_says_where_it_is_and_how_to_log_in(superset: LiveSuperset) -> None:
    folder = superset_home(superset.settings)
    for name in (SECRETS_FILE, STATE_FILE):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert f"Superset answers on {superset.address.url}" in superset.said
    for user in (ADMIN, ANALYST):
        assert superset.said.count(f"user {user}, password {superset.address.passwords[user]}") == 1


def test_what_the_login_page_reports_leaves_the_session_alone(superset: LiveSuperset) -> None:
    answer = httpx.post(f"{superset.address.url}/superset/log/", params={"explode": "events"}, data={"events": "[]"})
    assert answer.status_code == httpx.codes.NO_CONTENT
    assert "Set-Cookie" not in answer.headers


def test_each_chart_answers_with_rows(admin: httpx.Client) -> None:
    charts = list_all(admin, "chart")
    assert len(charts) == sum(name.startswith("charts/") for language in LANGUAGES for name in make_bundle(language))
    empty = []
    for chart in charts:
        answer = admin.get(f"/chart/{chart['id']}/data/")
        assert answer.status_code == httpx.codes.OK, f"{chart['slice_name']}: {answer.text}"
        if not all(result["rowcount"] for result in answer.json()["result"]):
            empty.append(chart["slice_name"])
    assert empty == []


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize("slug", SLUGS)
def test_a_dashboard_in_a_browser(superset: LiveSuperset, browser: Browser, slug: str) -> None:
    with new_page(browser) as (page, messages):
        log_in(page, superset.address, ANALYST)
        open_dashboard(page, superset.address, slug)
        assert blank_charts(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert messages == []


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize(
    ("slug", "name", "value"),
    [
        ("overview", "meter", "select meter_id from marts.mart_inspection_list order by suspicion_rank limit 1"),
        ("anomalies", "kind", "select 'High consumption'"),
        ("patterns", "day-kind", "select 'Weekend'"),
        ("losses", "feeder", "select min(node_id) from marts.mart_losses where node_type = 'feeder'"),
    ],
)
def test_a_filter_reaches_its_charts(
    superset: LiveSuperset, admin: httpx.Client, browser: Browser, slug: str, name: str, value: str
) -> None:
    filter_id = f"NATIVE_FILTER-{slug}-{name}"
    with open_postgres(superset.settings) as postgres, postgres.connect() as connection:
        ((chosen,),) = connection.execute(value.encode()).fetchall()
    asked: list[Request] = []
    with new_page(browser) as (page, messages):
        log_in(page, superset.address, ANALYST)
        open_dashboard(page, superset.address, slug)
        page.on("request", lambda request: asked.append(request) if is_of_chart(request.url) else None)
        choose(page, filter_id, chosen)
        wait_until_drawn(page)
        assert messages == []
    column, reached = filtered_charts(admin, slug, filter_id)
    wanted = {"col": column, "op": "IN", "val": [chosen]}
    found = {
        slice_of(request)
        for request in asked
        if all(wanted in query["filters"] for query in request.post_data_json["queries"])
    }
    assert found == reached
    assert found == {slice_of(request) for request in asked}


def filtered_charts(admin: httpx.Client, slug: str, filter_id: str) -> tuple[str, set[int]]:
    """The column that a filter names, and the charts in its scope by their numbers in this Superset."""
    document = make_bundle("en")[f"dashboards/{slug}.yaml"]
    (native,) = [one for one in document["metadata"]["native_filter_configuration"] if one["id"] == filter_id]
    uuids = {uuid for number, uuid in chart_uuids(document).items() if number not in native["scope"]["excluded"]}
    assert len(uuids) > 1
    return native["targets"][0]["column"]["name"], {
        chart["id"] for chart in list_all(admin, "chart") if chart["uuid"] in uuids
    }


def is_of_chart(url: str) -> bool:
    return "/api/v1/chart/data" in url and "form_data" in url


def slice_of(request: Request) -> int:
    """The chart that a request is of."""
    return int(json.loads(parse_qs(urlsplit(request.url).query)["form_data"][0])["slice_id"])


def choose(page: Page, filter_id: str, value: str) -> None:
    """Choose a value in a filter of the dashboard, and apply it."""
    box = page.locator(f"[data-test='{filter_id}']")
    box.click()
    box.locator("input").fill(value)
    page.locator(".ant-select-item-option", has_text=value).first.click()
    page.locator("[data-test='filter-bar__apply-button']").click()


def test_the_explanation_behind_a_link(superset: LiveSuperset, browser: Browser) -> None:
    with open_postgres(superset.settings) as postgres:
        meter = read_ranking(postgres)[0].meter_id
    path = f"/explanations/{quote(meter, safe='')}"
    nobody = httpx.get(superset.address.url + path)
    assert nobody.status_code == httpx.codes.FOUND
    assert "/login" in nobody.headers["Location"]
    with new_page(browser) as (page, messages):
        log_in(page, superset.address, ANALYST)
        page.goto(superset.address.url + path)
        page.wait_for_function("[...document.querySelectorAll('.chart')].every(box => box.dataset.drawn)")
        assert meter in page.inner_text("h1")
        assert messages == []
        answer = page.goto(f"{superset.address.url}/explanations/nobody")
        assert answer is not None
        assert answer.status == httpx.codes.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/chart/{chart}"),
        ("GET", "/chart/{chart}/data/"),
        ("POST", "/chart/data"),
        ("PUT", "/chart/{chart}"),
        ("DELETE", "/chart/{chart}"),
        ("POST", "/chart/"),
        ("PUT", "/dashboard/{dashboard}"),
        ("DELETE", "/dashboard/{dashboard}"),
        ("POST", "/dashboard/"),
        ("GET", "/dashboard/export/?q=!({dashboard})"),
        ("GET", "/dataset/"),
        ("GET", "/dataset/{dataset}"),
        ("POST", "/dataset/"),
        ("GET", "/database/"),
        ("GET", "/database/{database}"),
        ("GET", "/database/{database}/connection"),
        ("GET", "/database/{database}/schemas/"),
        ("POST", "/sqllab/execute/"),
        ("GET", "/query/"),
        ("GET", "/saved_query/"),
        ("GET", "/log/"),
        ("GET", "/report/"),
        ("GET", "/security/users/"),
        ("GET", "/security/roles/"),
        ("POST", "/security/guest_token/"),
        ("GET", "/rowlevelsecurity/"),
        ("GET", "/assets/export/"),
        ("POST", "/assets/import/"),
        ("POST", "/dashboard/import/"),
    ],
)
def test_the_analyst_reaches_nothing_else(admin: httpx.Client, analyst: httpx.Client, method: str, path: str) -> None:
    known = {kind: list_all(admin, kind)[0]["id"] for kind in ("chart", "dashboard", "dataset", "database")}
    bodies = {
        "/chart/data": {"datasource": {"id": known["dataset"], "type": "table"}, "queries": [{"metrics": ["count"]}]},
        "/sqllab/execute/": {"database_id": known["database"], "sql": "select 1"},
    }
    answer = analyst.request(method, path.format(**known), json=bodies.get(path))
    assert answer.status_code in {httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND, httpx.codes.UNAUTHORIZED}, answer.text


@pytest.mark.parametrize("page_path", ["/sqllab/", "/chart/add", "/users/list/", "/databaseview/list/", "/explore/"])
def test_the_analyst_is_shown_no_other_page(superset: LiveSuperset, browser: Browser, page_path: str) -> None:
    with new_page(browser) as (page, _):
        log_in(page, superset.address, ANALYST)
        answer = page.goto(superset.address.url + page_path)
        assert answer is not None
        assert answer.status == httpx.codes.FORBIDDEN


def test_the_export_makes_the_same_dashboards_in_an_empty_superset(
    superset: LiveSuperset, admin: httpx.Client, tmp_path: Path
) -> None:
    file = tmp_path / "energy_dashboards.zip"
    done = subprocess.run(command(superset.home, "export-dashboards", file), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = exported(admin, tmp_path)
    for kind in ("dashboard", "chart", "dataset"):
        ids = ",".join(str(one["id"]) for one in list_all(admin, kind))
        admin.delete(f"/{kind}/", params={"q": f"!({ids})"}).raise_for_status()
    for database in list_all(admin, "database"):
        admin.delete(f"/database/{database['id']}").raise_for_status()
    assert list_all(admin, "dashboard") == []
    upload = {"formData": (file.name, file.read_bytes(), "application/zip")}
    admin.post("/dashboard/import/", files=upload, data={"passwords": "{}"}).raise_for_status()
    assert exported(admin, tmp_path) == before


def exported(client: httpx.Client, folder: Path) -> dict[str, Any]:
    """What an export holds, by uuid, without what differs from one Superset to another."""
    file = folder / "exported.zip"
    assert export_dashboards(client, file) == len(SLUGS)
    with ZipFile(io.BytesIO(file.read_bytes())) as bundle:
        documents = [yaml.safe_load(bundle.read(name)) for name in bundle.namelist()]
    found = {
        document["uuid"]: without_noise(document, chart_uuids(document)) for document in documents if "uuid" in document
    }
    assert len(found) > len(SLUGS)
    return found


def chart_uuids(document: dict[str, Any]) -> dict[int, str]:
    """Uuids of a dashboard's charts, by the numbers that they have in this Superset."""
    places = [
        place["meta"] for place in document.get("position", {}).values() if isinstance(place, dict) and "meta" in place
    ]
    return {meta["chartId"]: meta["uuid"] for meta in places if "chartId" in meta}


def without_noise(value: Any, charts: dict[int, str]) -> Any:
    if isinstance(value, dict):
        if "excluded" in value:  # charts that a filter leaves alone
            value = value | {"excluded": sorted(charts[number] for number in value["excluded"])}
        return {name: without_noise(inner, charts) for name, inner in value.items() if name not in NOISE}
    if isinstance(value, list):
        return [without_noise(inner, charts) for inner in value]
    if isinstance(value, str) and value.startswith("{"):
        return without_noise(json.loads(value), charts)
    return value


def test_stopped_it_leaves_no_process_and_started_again_it_is_the_same(superset: LiveSuperset, tmp_path: Path) -> None:
    """Last of all: it ends the Superset of the others."""
    with logged_in(superset.address) as client:
        before = exported(client, tmp_path)
    started = processes_of(superset.process)
    assert len(started) >= 2
    superset.process.send_signal(signal.SIGTERM)
    superset.process.wait(timeout=60)
    assert [process for process in started if is_alive(process)] == []
    assert find_front(superset.home) is None
    with live_superset(superset.home) as again:
        assert "password " not in again.said
        with logged_in(again.address) as client:
            assert exported(client, tmp_path) == before
