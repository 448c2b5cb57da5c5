"""The bundle of dashboards as Superset imports it, put together from dashboards/superset, in English or translated.

The files there are in Superset's own format. What follows from them is added here: the query context of each chart,
without which Superset answers no request for the chart's data, and the whole of the translated bundle.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5
from zipfile import ZipFile

import yaml

from energy_iot.settings import PROJECT_DIR

BUNDLE_DIR: Final = PROJECT_DIR / "dashboards" / "superset"
LANGUAGES: Final = ("en", "fr")
FIRST_DASHBOARD: Final = "overview"  # slug of what a user sees first, in English

SQL_FIELDS: Final = frozenset({"expression", "sql"})
OWN_NAMES: Final = frozenset({"database_name", "slug"})  # Superset knows each once
SQL_TEXT: Final = re.compile(r"'( *)([^']*)'")  # what is in quotes, and the spaces that lead it

Document = dict[str, Any]


def write_bundle(folder: Path, language: str) -> Path:
    """Write a zip that Superset's import of assets takes; returns its path."""
    path = folder / f"energy_dashboards_{language}.zip"
    with ZipFile(path, "w") as bundle:
        for name, document in make_bundle(language).items():
            bundle.writestr(f"energy_dashboards/{name}", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return path


def own_name(name: str, language: str) -> str:
    """Of what Superset knows once, in a language: overview-fr."""
    return name if language == "en" else f"{name}-{language}"


def make_bundle(language: str) -> dict[str, Document]:
    """The bundle's documents by path, such as charts/load_profile.yaml."""
    documents = read_documents()
    if language != "en":
        documents = translate(documents, read_texts(language), language)
    for name, document in documents.items():
        if name.startswith("charts/"):
            document["query_context"] = json.dumps(query_context(document["params"]))
    return documents


def read_documents() -> dict[str, Document]:
    """The files as they are, by path below their folder."""
    paths = sorted(BUNDLE_DIR.rglob("*.yaml"))
    return {path.relative_to(BUNDLE_DIR).as_posix(): yaml.safe_load(path.read_text("utf-8")) for path in paths}


def read_texts(language: str) -> dict[str, str]:
    """The translation of each English text."""
    pairs = yaml.safe_load((BUNDLE_DIR / "translations" / f"{language}.yml").read_text("utf-8"))
    return {pair["en"].strip(): pair[language].strip() for pair in pairs}


# --- what a chart asks ----------------------------------------------------------------------------------------------


def query_context(params: Mapping[str, Any]) -> Document:
    """The request for a chart's data, as Superset stores it with the chart; filters of dashboards come on top.

    Args:
        params: The chart's parameters. All kinds of charts name what they show by a few of them, the same ones.

    Returns:
        The request; Superset fills in its own number of the dataset when it imports the chart.
    """
    conditions = params["adhoc_filters"]
    metrics = [params[name] for name in ("metric", "x", "y", "size") if name in params] + params.get("metrics", [])
    query = {
        "columns": _columns(params),
        "metrics": metrics,
        "filters": [_filter(condition) for condition in conditions if condition["clause"] == "WHERE"],
        "extras": {
            "having": " and ".join(
                f"({condition['sqlExpression']})" for condition in conditions if condition["clause"] == "HAVING"
            )
        },
        "orderby": _order(params, metrics),
        "row_limit": params.get("limit", params.get("row_limit", 0)),  # 0: as many as Superset allows
    }
    return {"datasource": {}, "queries": [query], "form_data": {}, "result_format": "json", "result_type": "full"}


def _columns(params: Mapping[str, Any]) -> list[str | Document]:
    columns = [params[name] for name in ("entity", "series") if name in params]
    groups = params.get("groupby", [])
    columns += groups if isinstance(groups, list) else [groups]  # a heat map has one
    return ([_axis(params)] if "x_axis" in params else []) + columns


def _axis(params: Mapping[str, Any]) -> str | Document:
    axis: str = params["x_axis"]
    if "time_grain_sqla" not in params:
        return axis
    return {
        "columnType": "BASE_AXIS",
        "expressionType": "SQL",
        "sqlExpression": axis,
        "label": axis,
        "timeGrain": params["time_grain_sqla"],
    }


def _filter(condition: Mapping[str, Any]) -> Document:
    compared = {"val": condition["comparator"]} if "comparator" in condition else {}
    return {"col": condition["subject"], "op": condition["operator"]} | compared


def _order(params: Mapping[str, Any], metrics: Sequence[str]) -> list[tuple[str, bool]]:
    """What to sort by, and whether from the smallest on."""
    if "sort_x_axis" in params:
        return [(params["x_axis"], params["sort_x_axis"].endswith("asc"))]
    return [(params.get("timeseries_limit_metric", metrics[0]), not params.get("order_desc", True))]


# --- in another language --------------------------------------------------------------------------------------------


def translate(documents: Mapping[str, Document], texts: Mapping[str, str], language: str) -> dict[str, Document]:
    """The same bundle in another language, beside the first one: what Superset knows by name or uuid has its own.

    A text is translated wherever it stands, so that what names a metric still does; of SQL, the texts in quotes.
    The database is another one too, since a database has each table with one set of labels.

    Args:
        documents: By path.
        texts: The translation of each text.
        language: As in the names of files: fr.
    """
    uuids = [document["uuid"] for document in documents.values() if "uuid" in document]
    new = dict(texts) | {uuid: str(uuid5(UUID(uuid), language)) for uuid in uuids}

    def translated(value: Any, field: str = "") -> Any:
        if isinstance(value, dict):
            return {new.get(key, key): translated(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [translated(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if field in OWN_NAMES:
            return own_name(value, language)
        if field in SQL_FIELDS:
            return SQL_TEXT.sub(lambda text: f"'{text[1]}{_escaped(texts.get(text[2], text[2]))}'", value)
        return new.get(value.strip(), value)

    return {name: translated(document) for name, document in documents.items()}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
