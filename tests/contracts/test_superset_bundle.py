"""The dashboards' files among themselves, against the tables that ClickHouse holds, and against their translation."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from clickhouse_connect.driver.client import Client

from energy_iot.serving.front_file import READER
from energy_iot.serving.superset_bundle import (
    FIRST_DASHBOARD,
    LANGUAGES,
    SQL_FIELDS,
    SQL_TEXT,
    make_bundle,
    read_documents,
    read_texts,
)
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.sync.published_tables import TABLES

Document = dict[str, Any]

DOCUMENTS = read_documents()
SHOWN_FIELDS = {
    "code", "compare_suffix", "dashboard_title", "description", "metric_name", "name", "slice_name", "subtitle", "text",
    "verbose_name", "x_axis_label", "x_axis_title", "y_axis_label", "y_axis_title",
}  # fmt: skip


def stems(kind: str) -> dict[str, Document]:
    return {Path(path).stem: document for path, document in DOCUMENTS.items() if path.startswith(f"{kind}/")}


DATASETS, CHARTS, DASHBOARDS = stems("datasets"), stems("charts"), stems("dashboards")
DATASET_OF_UUID = {dataset["uuid"]: dataset for dataset in DATASETS.values()}
CHART_OF_UUID = {chart["uuid"]: chart for chart in CHARTS.values()}
each_chart = pytest.mark.parametrize("name", CHARTS)
each_dashboard = pytest.mark.parametrize("slug", DASHBOARDS)
each_dataset = pytest.mark.parametrize("name", DATASETS)


def dataset_of(chart: Document) -> Document:
    return DATASET_OF_UUID[chart["dataset_uuid"]]


def columns_of(dataset: Document) -> set[str]:
    return {column["column_name"] for column in dataset["columns"]}


def metrics_of(dataset: Document) -> set[str]:
    return {metric["metric_name"] for metric in dataset["metrics"]}


def placed_charts(dashboard: Document) -> dict[int, Document]:
    """The charts of a dashboard by their number on it."""
    placed = [
        part["meta"] for part in dashboard["position"].values() if isinstance(part, dict) and part["type"] == "CHART"
    ]
    found = {meta["chartId"]: CHART_OF_UUID[meta["uuid"]] for meta in placed}
    assert len(found) == len(placed), "two charts have one number"
    return found


def test_there_is_something_to_compare() -> None:
    assert set(DASHBOARDS) == {"overview", "anomalies", "patterns", "losses"}
    assert FIRST_DASHBOARD in DASHBOARDS
    assert len(CHARTS) > 30
    assert len(DATASETS) >= 5


# --- identifiers and links ------------------------------------------------------------------------------------------


def test_uuids_follow_from_the_files_names() -> None:
    """So a renamed file is another object, and an import never takes one for another."""
    for path, document in DOCUMENTS.items():
        if path != "metadata.yaml":
            kind, *_, name = path.removesuffix(".yaml").split("/")
            assert document["uuid"] == str(uuid5(NAMESPACE_URL, f"energy-iot-pipeline/{kind}/{name}")), path


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_linked_is_there(language: str) -> None:
    bundle = make_bundle(language)
    known = {document["uuid"] for document in bundle.values() if "uuid" in document}
    linked = set(re.findall(r"""uuid['"]?: ['"]?([0-9a-f-]{36})""", str(list(bundle.values())), re.IGNORECASE))
    assert linked == known
    assert len(known) == len(bundle) - 1


def test_languages_have_nothing_in_common() -> None:
    """Superset knows these by uuid, dashboards also by slug and databases by name."""
    names = [
        {str(document.get(field)) for document in make_bundle(language).values()} - {"None"}
        for language in LANGUAGES
        for field in ("uuid", "slug", "database_name")
    ]
    assert all(names)
    assert len(set().union(*names)) == sum(map(len, names))


def test_the_database_can_only_be_read_and_holds_no_password() -> None:
    (database,) = stems("databases").values()
    assert database["sqlalchemy_uri"] == f"clickhousedb://{READER}@127.0.0.1:8123/{Settings().clickhouse_database}"
    allowed = {key for key, value in database.items() if key.startswith(("allow", "expose")) and value}
    assert allowed == set()


# --- datasets -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analytics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """ClickHouse with the published tables, empty."""
    with open_clickhouse(Settings(home=tmp_path_factory.mktemp("home"))) as client:
        for table in TABLES:
            client.command(f"create table {table.name} {table.definition('UTC')}")
        yield client


def source_of(dataset: Document) -> str:
    return f"({dataset['sql']})" if "sql" in dataset else dataset["table_name"]


@each_dataset
def test_a_dataset_has_the_columns_of_its_source(analytics: Client, name: str) -> None:
    dataset = DATASETS[name]
    described = analytics.query(f"describe (select * from {source_of(dataset)})").result_rows
    stored = {column["column_name"]: column["type"] for column in dataset["columns"] if "expression" not in column}
    assert stored
    assert stored == {row[0]: row[1] for row in described if row[0] in stored or "sql" not in dataset}


@pytest.mark.parametrize("language", LANGUAGES)
@each_dataset
def test_expressions_are_what_clickhouse_understands(analytics: Client, name: str, language: str) -> None:
    dataset = make_bundle(language)[f"datasets/ClickHouse/{name}.yaml"]
    calculated = {column["column_name"]: column for column in dataset["columns"] if "expression" in column}
    # without names, since a filter uses an expression without the others: it may not build on one of them
    rows = ", ".join(column["expression"] for column in calculated.values())
    described = analytics.query(f"describe (select {rows} from {source_of(dataset)})").result_rows
    # an Enum's type names its values, which are the expression's
    assert [re.sub(r"^(Enum8)\(.*", r"\1", row[1]) for row in described] == [
        column["type"] for column in calculated.values()
    ]
    metrics = ", ".join(metric["expression"] for metric in dataset["metrics"])
    assert analytics.query(f"select {metrics} from {source_of(dataset)}").row_count == 1


def test_what_is_calculated_twice_is_calculated_alike() -> None:
    of_its_own_date = {"day", "day_kind"}
    expressions: dict[str, set[str]] = {}
    for dataset in DATASETS.values():
        for column in dataset["columns"]:
            if "expression" in column and column["column_name"] not in of_its_own_date:
                expressions.setdefault(column["column_name"], set()).add(column["expression"])
    assert expressions
    assert {name: found for name, found in expressions.items() if len(found) > 1} == {}


@each_dataset
def test_each_metric_is_shown_or_sorted_by(name: str) -> None:
    asked = str([chart["params"] for chart in CHARTS.values() if dataset_of(chart) is DATASETS[name]])
    assert {metric for metric in metrics_of(DATASETS[name]) if metric not in asked} == set()


# --- charts ---------------------------------------------------------------------------------------------------------


@each_chart
def test_a_chart_asks_for_what_its_dataset_has(name: str) -> None:
    chart = CHARTS[name]
    params, dataset = chart["params"], dataset_of(chart)
    (query,) = json.loads(make_bundle("en")[f"charts/{name}.yaml"]["query_context"])["queries"]
    columns = {column if isinstance(column, str) else column["sqlExpression"] for column in query["columns"]}
    columns |= {condition["col"] for condition in query["filters"]}
    assert query["metrics"]
    assert columns <= columns_of(dataset)
    assert set(query["metrics"]) <= metrics_of(dataset)
    assert {order for order, _ in query["orderby"]} <= columns_of(dataset) | metrics_of(dataset)
    named = set(params.get("column_config", {})) | {rule["column"] for rule in params.get("conditional_formatting", [])}
    assert named <= set(query["metrics"]) | columns


@each_chart
def test_a_chart_says_what_it_shows(name: str) -> None:
    assert CHARTS[name]["slice_name"]
    assert len(CHARTS[name]["description"]) > 20


@pytest.mark.parametrize(("table", "column"), [("consumption_metrics", "period_type"), ("losses", "node_type")])
def test_energy_is_counted_once(table: str, column: str) -> None:
    """Days, weeks and months hold the same energy, and so do a feeder and its transformers."""
    charts = [chart for chart in CHARTS.values() if dataset_of(chart)["table_name"] == table]
    assert charts
    for chart in charts:
        conditions = [one for one in chart["params"]["adhoc_filters"] if one.get("subject") == column]
        assert [condition["operator"] for condition in conditions] == ["=="], chart["slice_name"]


# --- dashboards -----------------------------------------------------------------------------------------------------


def test_each_chart_is_on_one_dashboard() -> None:
    placed = [chart["uuid"] for dashboard in DASHBOARDS.values() for chart in placed_charts(dashboard).values()]
    assert sorted(placed) == sorted(CHART_OF_UUID)


@each_dashboard
def test_the_layout_hangs_together_and_is_no_wider_than_the_page(slug: str) -> None:
    dashboard = DASHBOARDS[slug]
    parts = {key: part for key, part in dashboard["position"].items() if isinstance(part, dict)}
    assert dashboard["slug"] == slug
    assert parts["HEADER_ID"]["meta"]["text"] == dashboard["dashboard_title"]
    for key, part in parts.items():
        assert part["id"] == key
        for child in part.get("children", []):
            assert parts[child]["parents"] == [*part.get("parents", []), key]
        if part["type"] == "ROW":
            assert sum(parts[child]["meta"]["width"] for child in part["children"]) == 12
    hung = {child for part in parts.values() for child in part.get("children", [])}
    assert hung == set(parts) - {"ROOT_ID", "HEADER_ID"}


@each_dashboard
def test_each_filter_reaches_a_chart(slug: str) -> None:
    dashboard = DASHBOARDS[slug]
    charts = placed_charts(dashboard)
    filters = dashboard["metadata"]["native_filter_configuration"]
    assert len(filters) >= 3
    for native in filters:
        excluded = set(native["scope"]["excluded"])
        assert excluded <= set(charts), native["name"]
        reached = [chart for number, chart in charts.items() if number not in excluded]
        (target,) = native["targets"]
        if native["filterType"] == "filter_time":
            reached = [chart for chart in reached if "TEMPORAL_RANGE" in str(chart["params"]["adhoc_filters"])]
        elif native["filterType"] == "filter_timegrain":
            reached = [chart for chart in reached if "time_grain_sqla" in chart["params"]]
        else:
            column = target["column"]["name"]
            assert column in columns_of(DATASET_OF_UUID[target["datasetUuid"]]), native["name"]
            reached = [chart for chart in reached if column in columns_of(dataset_of(chart))]
        assert reached, native["name"]


def test_a_thing_has_one_colour() -> None:
    colours: dict[str, set[str]] = {}
    for dashboard in DASHBOARDS.values():
        for label, colour in dashboard["metadata"]["label_colors"].items():
            colours.setdefault(label, set()).add(colour)
    assert len(colours) > 10
    assert {label: found for label, found in colours.items() if len(found) > 1} == {}
    assert set(colours) <= set(shown_texts(DOCUMENTS))


# --- translations ---------------------------------------------------------------------------------------------------


def shown_texts(documents: dict[str, Document]) -> Iterator[str]:
    """All that a reader of the dashboards, or of their datasets, can see."""

    def texts(value: Any, field: str, inside: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from texts(inner, key, field)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner, field, inside)
        elif field in SQL_FIELDS:
            # codes that the data hold are in small letters; other quotes are markup
            yield from (text for _, text in SQL_TEXT.findall(value) if re.match(r"[A-Z]|\w+ ", text))
        elif field in SHOWN_FIELDS and (field, inside) != ("name", "column"):
            yield value.strip()

    for document in documents.values():
        yield from texts(document, "", "")


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_text_is_translated_and_no_translation_is_left_over(language: str) -> None:
    texts = read_texts(language)
    shown = set(shown_texts(DOCUMENTS))
    assert len(shown) > 150
    assert set(texts) == shown
    assert all(texts.values())
    assert not [text for text in texts if re.fullmatch(r"[a-z_]+", text)], "this may be a code that is no text"
    assert set(shown_texts(make_bundle(language))) <= set(texts.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_metrics_and_colours_keep_their_names_apart(language: str) -> None:
    """Two texts with one translation would make one metric, or one colour, of two."""
    for path, document in make_bundle(language).items():
        if path.startswith("datasets/"):
            names = [metric["metric_name"] for metric in document["metrics"]]
            assert len(set(names)) == len(names), path
        if path.startswith("dashboards/"):
            assert len(document["metadata"]["label_colors"]) == len(DOCUMENTS[path]["metadata"]["label_colors"])
