"""The file context of Great Expectations: opened as a copy, so that the checkout is never written to."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import great_expectations as gx
import sqlalchemy
from great_expectations.data_context.data_context.file_data_context import FileDataContext
from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier
from great_expectations.datasource.fluent.postgres_datasource import PostgresDatasource
from psycopg import Connection
from psycopg.types.numeric import FloatDumper

from energy_iot.settings import PROJECT_DIR, Settings
from energy_iot.storage.postgres import Postgres

CONTEXT_DIR: Final = PROJECT_DIR / "great_expectations"
CHECKPOINT: Final = "energy_checkpoint"
DATASOURCE: Final = "postgres"

# table assets name no schema (Great Expectations deprecates it there): the search path finds them
SEARCH_PATH: Final = "raw_data,staging,intermediate,marts"

# results of more runs would make each page of Data Docs, and its index, slower; PostgreSQL keeps them all
RUNS_KEPT: Final = 30

# suite parameters ($PARAMETER in the JSON files): settings of the same name
PARAMETERS: Final = (
    "max_consumption_kwh",
    "min_temperature_c",
    "max_temperature_c",
    "min_completeness",
    "max_null_share",
    "min_voltage_v",
    "max_voltage_v",
)


@contextmanager
def open_context(settings: Settings, postgres: Postgres | None = None) -> Iterator[FileDataContext]:
    """Open a copy of `great_expectations/` whose results and pages live under the home folder.

    Args:
        settings: Where home is.
        postgres: The database to judge; None to read suites and build pages only. Its address stays in memory.

    Yields:
        The context; its connections are closed when the block ends.
    """
    # analytics and progress bars are off in great_expectations.yml
    with tempfile.TemporaryDirectory(prefix="energy-iot-gx-") as folder:
        copy = Path(folder) / CONTEXT_DIR.name
        shutil.copytree(CONTEXT_DIR, copy, ignore=shutil.ignore_patterns("uncommitted", ".*"))
        context = gx.get_context(
            mode="file",
            context_root_dir=str(copy),
            runtime_environment={
                "ENERGY_IOT_POSTGRES_URL": _sqlalchemy_url(postgres) if postgres else "postgresql+psycopg://",
                "ENERGY_IOT_VALIDATIONS_DIR": str(validations_dir(settings)),
                "ENERGY_IOT_DATA_DOCS_DIR": str(docs_dir(settings)),
            },
        )
        if postgres is None:
            yield context
            return
        datasource = context.data_sources.get(DATASOURCE)
        assert isinstance(datasource, PostgresDatasource)
        engine = datasource.get_execution_engine().engine
        sqlalchemy.event.listen(engine, "connect", _pass_floats_untyped)
        try:
            yield context
        finally:
            engine.dispose()
            datasource.get_engine().dispose()


def docs_dir(settings: Settings) -> Path:
    """Folder of the HTML pages."""
    return settings.reports_dir / "data_docs"


def validations_dir(settings: Settings) -> Path:
    """Folder of the results as Great Expectations stores them: what Data Docs are built from."""
    return settings.home / "great_expectations" / "validations"


def suite_parameters(settings: Settings) -> dict[str, Any]:
    """The thresholds of the suites, from the settings."""
    return {name: getattr(settings, name) for name in PARAMETERS}


def write_docs(settings: Settings, context: FileDataContext, results: list[Any] | None = None) -> None:
    """Write Data Docs: the suites, the given results and the index; without `results`, everything there is."""
    identifiers = None
    if results is not None:
        # one call for all: each call compiles all templates anew
        identifiers = [*(ExpectationSuiteIdentifier(suite.name) for suite in context.suites.all()), *results]
    context.build_data_docs(resource_identifiers=identifiers)
    _add_plain_index(settings, [suite.name for suite in context.suites.all()])


def forget_old_runs(settings: Settings, keep: int = RUNS_KEPT) -> None:
    """Remove results and pages of all but the last `keep` runs of each suite; run ids sort by time."""
    for suite in validations_dir(settings).glob("*"):
        runs = sorted(run for run in suite.glob("*") if run.is_dir())
        for run in runs[: max(len(runs) - keep, 0)]:
            shutil.rmtree(docs_dir(settings) / "validations" / suite.name / run.name, ignore_errors=True)
            shutil.rmtree(run)


# Great Expectations' index is drawn by scripts from the internet, and stays empty where that is out of reach
PLAIN_INDEX: Final = """<section id="plain-index" style="margin: 1rem 0.5rem 4rem; font-family: sans-serif">
<table cellpadding="6">
<tr align="left"><th>Suite</th><th>Latest result</th><th>Run</th></tr>
{rows}
</table>
</section>
<script>
if (window.jQuery && jQuery.fn.bootstrapTable) document.getElementById("plain-index").remove();
</script>
</body>"""


def _add_plain_index(settings: Settings, suites: list[str]) -> None:
    """Add links to the suites and their latest results that need no network."""
    rows = []
    for suite in sorted(suites):
        cells = [_link(f"expectations/{suite}.html", suite)]
        # run ids, and the times below them, sort by time
        results = sorted((validations_dir(settings) / suite).glob("*/*/*.json"))
        if results:
            latest = results[-1]
            page = latest.relative_to(validations_dir(settings)).with_suffix(".html")
            success = json.loads(latest.read_text())["success"]
            cells.append(_link(f"validations/{page.as_posix()}", "all rules hold" if success else "some rules fail"))
            cells.append(escape(page.parts[1]))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    index = docs_dir(settings) / "index.html"
    index.write_text(index.read_text().replace("</body>", PLAIN_INDEX.format(rows="\n".join(rows))))


def _link(address: str, text: str) -> str:
    return f'<a href="{quote(address)}">{escape(text)}</a>'


def _sqlalchemy_url(postgres: Postgres) -> str:
    """The address with our search path; the password where SQLAlchemy knows it and masks it in its messages."""
    query = dict(postgres.parameters)
    user, password, database = (query.pop(name, None) for name in ("user", "password", "dbname"))
    query["options"] = f"{query.get('options', '')} -c search_path={SEARCH_PATH}".strip()
    url = sqlalchemy.URL.create("postgresql+psycopg", user, password, database=database, query=query)
    return url.render_as_string(hide_password=False)


class _UntypedFloatDumper(FloatDumper):
    """Leaves the type of a float parameter to PostgreSQL.

    Declared as double precision it would turn each numeric value of a column into a double before comparing: twice
    the time for the ranges.
    """

    oid = 0


def _pass_floats_untyped(connection: "Connection[Any]", _record: object) -> None:
    connection.adapters.register_dumper(float, _UntypedFloatDumper)
