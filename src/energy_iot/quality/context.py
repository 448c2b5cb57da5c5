"""The file context of Great Expectations: opened as a copy, so that the checkout is never written to."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
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
from psycopg import Connection, OperationalError
from psycopg.types.numeric import FloatDumper

from energy_iot.quality.suites import CONTEXT_DIR, suite_file
from energy_iot.settings import Settings

CHECKPOINT: Final = "energy_checkpoint"
DATASOURCE: Final = "postgres"

# results of more runs would make each page of Data Docs, and its index, slower; PostgreSQL keeps them all
RUNS_KEPT: Final = 30


@contextmanager
def open_context(
    settings: Settings,
    connection: Connection[Any] | None = None,
    *,
    instead: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[FileDataContext]:
    """Open a copy of `great_expectations/` whose results and pages live under the home folder.

    Args:
        settings: Where home is.
        connection: The session whose tables are judged; None to read suites and build pages only. Great Expectations
            is handed the connection itself, and never learns an address or a password.
        instead: Suites by name that replace the committed ones.

    Yields:
        The context; it lets go of the connection when the block ends, and closes it.
    """
    # analytics and progress bars are off in great_expectations.yml
    with tempfile.TemporaryDirectory(prefix="energy-iot-gx-") as folder:
        copy = Path(folder) / CONTEXT_DIR.name
        shutil.copytree(CONTEXT_DIR, copy, ignore=shutil.ignore_patterns("uncommitted", ".*"))
        for name, suite in (instead or {}).items():
            suite_file(name, copy).write_text(json.dumps(suite))
        context = gx.get_context(
            mode="file",
            context_root_dir=str(copy),
            runtime_environment={
                "ENERGY_IOT_POSTGRES_DIALECT": "postgresql+psycopg://",
                "ENERGY_IOT_VALIDATIONS_DIR": str(validations_dir(settings)),
                "ENERGY_IOT_DATA_DOCS_DIR": str(docs_dir(settings)),
            },
        )
        if connection is None:
            yield context
            return
        connection.adapters.register_dumper(float, _UntypedFloatDumper)
        datasource = context.data_sources.get(DATASOURCE)
        assert isinstance(datasource, PostgresDatasource)
        engines = (datasource.get_execution_engine().engine, datasource.get_engine())
        for engine in engines:
            sqlalchemy.event.listen(engine, "do_connect", _hand_over(connection))
        try:
            yield context
        finally:
            for engine in engines:
                engine.dispose()


def docs_dir(settings: Settings) -> Path:
    """Folder of the HTML pages."""
    return settings.reports_dir / "data_docs"


def validations_dir(settings: Settings) -> Path:
    """Folder of the results as Great Expectations stores them: what Data Docs are built from."""
    return settings.home / "great_expectations" / "validations"


def write_docs(settings: Settings, context: FileDataContext, results: list[Any] | None = None) -> None:
    """Write Data Docs: the committed suites, the given results, the index; without `results`, all there are."""
    shutil.copytree(CONTEXT_DIR / "expectations", Path(context.root_directory) / "expectations", dirs_exist_ok=True)
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


def _hand_over(connection: Connection[Any]) -> Callable[..., Connection[Any]]:
    """What gives SQLAlchemy our connection in place of a new one."""

    def connect(*_how_it_would: object) -> Connection[Any]:
        if connection.closed:  # each further rule would fail as slowly as a server can be missed
            raise OperationalError("the connection is lost")
        return connection

    return connect


class _UntypedFloatDumper(FloatDumper):
    """Leaves the type of a float parameter to PostgreSQL.

    Declared as double precision it would turn each numeric value of a column into a double before comparing: twice
    the time for the ranges.
    """

    oid = 0
