"""The command line: options and glue. Nothing heavy is imported before a command runs."""

import shlex
import signal
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from energy_iot import __version__
from energy_iot.errors import DataQualityError, EnergyIoTError

if TYPE_CHECKING:
    from energy_iot.pipeline import RunOptions, RunSummary
    from energy_iot.reporting.progress import Progress
    from energy_iot.settings import Settings


class _GlobalOptionsAnywhere(TyperGroup):
    """Takes the global options behind the command too: `energy-iot run FILE --home DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move global options in front of the command; what follows `dbt` or `--` is left as it is."""
        moved: list[str] = []
        kept: list[str] = []
        rest = iter(args)
        for argument in rest:
            if argument == "--home":
                moved += [argument, *([value] if (value := next(rest, None)) is not None else [])]
            elif argument.startswith("--home=") or argument in {"--verbose", "-v", "--quiet", "-q"}:
                moved.append(argument)
            elif argument == "--" or (argument == "dbt" and not kept):
                kept += [argument, *rest]
            else:
                kept.append(argument)
        return super().parse_args(ctx, moved + kept)


app = typer.Typer(
    cls=_GlobalOptionsAnywhere,
    name="energy-iot",
    help="Smart-meter readings to answers: sound or not, consumed when, abnormal where, and why.",
    epilog="Exit codes: 0 done, 2 usage, 3 input, 4 data quality, 5 storage, 6 model, 130 interrupted, 1 any other.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="The settings in force.", no_args_is_help=True)
app.add_typer(config_app, name="config")
rejects_app = typer.Typer(help="Lines that could not become readings.", no_args_is_help=True)
app.add_typer(rejects_app, name="rejects")
inspections_app = typer.Typer(help="What inspections of meters found.", no_args_is_help=True)
app.add_typer(inspections_app, name="inspections")
serve_app = typer.Typer(help="What other programs connect to.", no_args_is_help=True)
app.add_typer(serve_app, name="serve")
metrics_app = typer.Typer(help="What Prometheus reads.", no_args_is_help=True)
app.add_typer(metrics_app, name="metrics")
container_app = typer.Typer(help="What the containers of docker-compose.yml run.", no_args_is_help=True)
app.add_typer(container_app, name="container")

SHOWN_FINDINGS = 5
INTERRUPTED_EXIT_CODE = 130  # what shells use for Ctrl-C


class Layer(StrEnum):
    """The dbt layers, in order."""

    STAGING = "staging"
    INTERMEDIATE = "intermediate"
    MARTS = "marts"


class Gate(StrEnum):
    """The two places where data is judged."""

    STAGING = "staging"
    MARTS = "marts"


class Dataset(StrEnum):
    """Public data sets that `download` knows."""

    UCI = "uci"
    KAGGLE = "kaggle"


@dataclass(frozen=True)
class Invocation:
    """The global options of this call."""

    home: Path | None
    verbose: bool
    quiet: bool

    def settings(self) -> "Settings":
        """The settings in force, the command line's own included."""
        from energy_iot.settings import load_settings

        return load_settings(home=self.home)

    @property
    def command(self) -> str:
        """What to type before another command's name, so that it works on the same home."""
        return "energy-iot" if self.home is None else f"energy-iot --home {shlex.quote(str(self.home))}"

    def progress(self) -> "Progress":
        """Bars, lines or nothing."""
        from energy_iot.reporting.progress import make_progress

        return make_progress(quiet=self.quiet)


FILES_HELP = "Readings, registry, network: .csv, .txt, .gz, .zip, .parquet, or a folder of such files."
Files = Annotated[list[Path], typer.Argument(metavar="FILE", help=FILES_HELP, show_default=False)]
Source = Annotated[
    str | None,
    typer.Option("--source", metavar="NAME", help="Source mapping, by name or as a .yml file; else recognised."),
]
FullRefresh = Annotated[
    bool, typer.Option("--full-refresh", help="Build everything derived whole, not only what changed.")
]
Rescore = Annotated[
    str | None,
    typer.Option(
        "--rescore",
        metavar="WHAT",
        help="Score again with the newest model: 'all' (it comes into force), or days as 2026-10-01..2026-10-31.",
    ),
]
Wait = Annotated[
    float,
    typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for another run here to end."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"energy-iot {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="State of the embedded databases, models, reports [.energy_iot]."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of unexpected errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables; errors only.")] = False,
    version: Annotated[  # its callback acts
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set what holds for all commands."""
    context.obj = Invocation(home, verbose, quiet)


# --- the pipeline ---------------------------------------------------------------------------------------------------


@app.command()
def run(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help=f"{FILES_HELP} None: finish what is left.", show_default=False),
    ] = None,
    source: Source = None,
    full_refresh: FullRefresh = False,
    rescore: Rescore = None,
    wait: Wait = 0,
) -> None:
    """Run the whole pipeline on files.

    Load, transform, validate, score, publish to ClickHouse, and write the report. Files that are loaded already add
    nothing, and only what changed is built anew. After an interruption, the same command finishes the work.

    Example: energy-iot run readings/2026-11-20.csv.gz
    """
    from energy_iot.pipeline import ALL_STEPS, RunOptions

    options = RunOptions(
        files=tuple(files or ()), source=source, full_refresh=full_refresh, rescore=rescore, wait_seconds=wait
    )
    _run_with_report(context.obj, options, ALL_STEPS)


@app.command("check-source")
def check_source(context: typer.Context, files: Files, source: Source = None) -> None:
    """Recognise files; write nothing."""
    from energy_iot.pipeline import RunOptions

    invocation: Invocation = context.obj
    options = RunOptions(files=tuple(files), source=source)
    summary = _run_steps(invocation, invocation.settings(), ("check_source",), options)
    if not invocation.quiet:
        _print_steps(summary)
        for file in summary.steps[0].report.details["files"]:
            typer.echo(f"{file['file']}: {file['source']}, {file['status']}")


@app.command()
def ingest(context: typer.Context, files: Files, source: Source = None, wait: Wait = 0) -> None:
    """Load files into PostgreSQL.

    Each file is loaded whole or not at all; a file already loaded adds nothing.
    """
    _run_and_print(context, ("check_source", "ingest_data"), files=tuple(files), source=source, wait_seconds=wait)


@app.command()
def transform(
    context: typer.Context,
    layer: Annotated[
        Layer | None, typer.Argument(help="One layer; else all that can be built.", show_default=False)
    ] = None,
    full_refresh: FullRefresh = False,
) -> None:
    """Build the dbt models."""
    names = tuple(f"dbt_run_{name}" for name in ([layer] if layer else Layer))
    _run_and_print(context, names, full_refresh=full_refresh)


@app.command()
def validate(
    context: typer.Context,
    gate: Annotated[Gate | None, typer.Argument(help="What to judge; else both.", show_default=False)] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Judge all rows, not only new ones.")] = False,
) -> None:
    """Judge the data with Great Expectations.

    A critical failure ends with exit code 4 and a table of what failed; warnings do not.
    """
    names = tuple(f"ge_validate_{name}" for name in ([gate] if gate else Gate))
    _run_and_print(context, names, full_refresh=full_refresh)


@app.command()
def train(context: typer.Context) -> None:
    """Train a new model version.

    It comes into force when all readings are scored with it: energy-iot run --rescore all
    """
    from energy_iot.pipeline import RunOptions

    invocation: Invocation = context.obj
    summary = _run_steps(invocation, invocation.settings(), ("train",), RunOptions())
    if not invocation.quiet:
        trained = summary.steps[0].report
        typer.echo(f"trained model version {trained.details['model_version']} on {trained.rows_out:,} readings")
        typer.echo("compare it with the one in force: energy-iot compare-models")
        typer.echo("put it into force: energy-iot promote-model, or unconditionally energy-iot run --rescore all")


@app.command("compare-models")
def compare_models(context: typer.Context) -> None:
    """Compare the newest model with the one in force.

    On the latest 30 days: distribution of the scores, share of anomalies, agreement with labels and inspections.
    """
    _run_and_print(context, ("compare_models",))


@app.command("promote-model")
def promote_model(context: typer.Context) -> None:
    """Put the newest model into force, if comparison allows it.

    All readings are then scored anew, and what follows from the scores is published.
    """
    from energy_iot.pipeline import PUBLISHING_STEPS

    _run_and_print(context, ("promote_model", *PUBLISHING_STEPS))


@app.command("renew-model")
def renew_model(context: typer.Context) -> None:
    """Train a model, and use it if it compares well.

    Otherwise the model in force stays so, and the reason is told. The bounds: promotion_max_score_shift,
    promotion_max_auc_loss, expected_anomaly_share.
    """
    from energy_iot.pipeline import MODEL_STEPS

    _run_and_print(context, MODEL_STEPS)


@app.command()
def score(context: typer.Context, rescore: Rescore = None, full_refresh: FullRefresh = False) -> None:
    """Score the readings.

    With the model version in force; without one, a model is trained first.
    """
    _run_and_print(context, ("ml_score",), rescore=rescore, full_refresh=full_refresh)


@app.command()
def sync(context: typer.Context, full_refresh: FullRefresh = False) -> None:
    """Publish the marts to ClickHouse."""
    _run_and_print(context, ("sync_to_clickhouse",), full_refresh=full_refresh)


# --- what was loaded ------------------------------------------------------------------------------------------------


@app.command()
def forget(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="NAME", help="A loaded file: its name, or the beginning of its SHA-256."),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="All files that this run loaded, as in `status`.")
    ] = None,
    wait: Wait = 0,
) -> None:
    """Take a file's readings out again.

    What they touched is built anew, up to ClickHouse and the report. The file may be loaded again later.

    Example: energy-iot forget --file 2026-11-20.csv.gz
    """
    from energy_iot.pipeline import REBUILD_STEPS, RunOptions

    options = RunOptions(forget_file=file, forget_run=run_id, wait_seconds=wait)
    _run_with_report(context.obj, options, ("forget", *REBUILD_STEPS))


RejectsOfFile = Annotated[
    str | None, typer.Option("--file", metavar="NAME", help="Of one file: its name, or the beginning of its SHA-256.")
]
RejectsOfRun = Annotated[str | None, typer.Option("--run", metavar="ID", help="Of the files that this run loaded.")]
ResolvedToo = Annotated[bool, typer.Option("--all", help="Also those whose corrected line was loaded.")]


@rejects_app.command("list")
def rejects_list(
    context: typer.Context,
    file: RejectsOfFile = None,
    run_id: RejectsOfRun = None,
    resolved_too: ResolvedToo = False,
    limit: Annotated[int, typer.Option(min=0, help="How many lines to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show rejected lines, by file and reason."""
    from dataclasses import asdict

    from energy_iot.ingestion.reject_list import RejectFilter, list_rejects
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(context.obj.settings()) as postgres:
        found = list_rejects(postgres, RejectFilter(file, run_id, resolved_too), limit=limit)
    if as_json:
        _echo_json(asdict(found))
        return
    from energy_iot.reporting.summary import rejects_tables
    from energy_iot.reporting.terminal import make_console

    make_console().print(rejects_tables(found))


@rejects_app.command("export")
def rejects_export(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A new file; else standard output.")] = None,
    file: RejectsOfFile = None,
    run_id: RejectsOfRun = None,
    resolved_too: ResolvedToo = False,
) -> None:
    """Write rejected lines as CSV, to be corrected.

    Correct the column raw_text, and load the lines with: energy-iot rejects retry FILE
    """
    from energy_iot.ingestion.reject_list import RejectFilter, export_rejects
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(context.obj.settings()) as postgres:
        count = export_rejects(postgres, out, RejectFilter(file, run_id, resolved_too))
    if out is not None:
        typer.echo(f"{out}: {count:,} rejected lines")


@rejects_app.command("retry")
def rejects_retry(
    context: typer.Context,
    corrected: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="An export whose raw_text was corrected; else all as they are."),
    ] = None,
    source: Source = None,
    wait: Wait = 0,
) -> None:
    """Load corrected lines.

    Without a file, all open rejects are tried as they are, after limits or a mapping were changed. What is loaded goes
    all the way, up to ClickHouse and the report.
    """
    from energy_iot.pipeline import REBUILD_STEPS, RunOptions

    options = RunOptions(source=source, corrected_rejects=corrected, wait_seconds=wait)
    _run_with_report(context.obj, options, ("retry_rejects", *REBUILD_STEPS))


# --- theft ----------------------------------------------------------------------------------------------------------


class RankFormat(StrEnum):
    """How the inspection list is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.command()
def rank(
    context: typer.Context,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="How many meters.")] = 20,
    form: Annotated[RankFormat, typer.Option("--format", help="csv starts with meter_id,score.")] = RankFormat.TABLE,
) -> None:
    """Show the inspection list.

    The most suspicious meters first, with reasons and an estimate of what is lost.

    Example: energy-iot rank --top 100 --format csv > crews.csv
    """
    from energy_iot.ml.rank import read_ranking, to_csv, to_json
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(context.obj.settings()) as postgres:
        suspects = read_ranking(postgres)
    if form is RankFormat.CSV:
        typer.echo(to_csv(suspects[:top]), nl=False)
    elif form is RankFormat.JSON:
        typer.echo(to_json(suspects[:top]))
    else:
        from energy_iot.reporting.summary import suspects_table
        from energy_iot.reporting.terminal import make_console

        make_console().print(suspects_table(suspects[:top], total=len(suspects)))


@app.command()
def explain(
    context: typer.Context,
    meter_id: Annotated[str, typer.Argument(metavar="METER_ID", help="A meter on the inspection list.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Where to write the page; else the reports folder.")
    ] = None,
) -> None:
    """Show why a meter is on the list.

    Against its own past, its peers and the unexplained energy of its transformer: as text, and as a page with pictures.

    Example: energy-iot explain M000123 --html m000123.html
    """
    from energy_iot.ml.explain import read_explanation, to_text
    from energy_iot.reporting.explain_page import write_explanation
    from energy_iot.reporting.terminal import WrappedLines, make_console
    from energy_iot.storage.postgres import open_postgres

    settings = context.obj.settings()
    with open_postgres(settings) as postgres:
        explanation = read_explanation(postgres, meter_id)
    console, text = make_console(), to_text(explanation)
    if console.is_terminal:
        console.print(WrappedLines(tuple(text.splitlines())))
    else:
        typer.echo(text)
    typer.echo(f"\nPage: {write_explanation(settings, explanation, html)}")


@inspections_app.command("import")
def inspections_import(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="meter_id,inspected_on,found_theft,kind,recovered_kwh; CSV, zip ...")
    ],
    wait: Wait = 0,
) -> None:
    """Load outcomes, and rank the meters anew.

    The list then shows them. Once there are enough, a ranking is learned from them, and used if it proves better than
    the one without. Of several outcomes for a meter and day, the latest loaded counts.

    Example: energy-iot inspections import outcomes.csv
    """
    from energy_iot.ml.inspections import refuse_other_content
    from energy_iot.pipeline import ALL_STEPS, RunOptions

    refuse_other_content(file)
    _run_with_report(context.obj, RunOptions(files=(file,), wait_seconds=wait), ALL_STEPS)


@inspections_app.command("list")
def inspections_list(
    context: typer.Context,
    meter: Annotated[str | None, typer.Option("--meter", metavar="ID", help="Of one meter.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show outcomes, newest first."""
    from dataclasses import asdict

    from energy_iot.ml.inspections import describe_inspections, read_inspections
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(context.obj.settings()) as postgres, postgres.connect() as connection:
        found = read_inspections(connection, meter_id=meter)
    if as_json:
        _echo_json([asdict(one) for one in found[:limit]])
        return
    from energy_iot.reporting.summary import inspections_table
    from energy_iot.reporting.terminal import make_console

    make_console().print(inspections_table(found[:limit], title=describe_inspections(found)))


@app.command()
def evaluate(
    context: typer.Context,
    fleets: Annotated[int, typer.Option(min=1, help="How many, if no seeds are given.")] = 5,
    meters: Annotated[int, typer.Option(min=50, help="Meters of each fleet.")] = 600,
    days: Annotated[int, typer.Option(min=60, help="Days of readings.")] = 120,
    interval: Annotated[int, typer.Option(metavar="MINUTES", help="Between two readings.")] = 30,
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="Which fleets, as 101-105,110; else fresh ones.")] = "",
    development: Annotated[
        bool, typer.Option("--development", help="On development fleets (seeds 1-9), without held-out kinds.")
    ] = False,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Take seeds that another version was judged on, and say so.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.md", help="Where to write [docs/evaluation.md; nothing of development]."),
    ] = None,
) -> None:
    """Judge the list on fleets whose truth is known.

    Generates each fleet, runs the whole pipeline on it, and compares its list and simpler rankings with the truth.
    Needs a checkout of the project. Five fleets of 600 meters take some minutes each.

    Example: energy-iot evaluate --development --fleets 1 --meters 200
    """
    from energy_iot.ml.evaluate import evaluate as evaluate_detector
    from energy_iot.ml.evaluation.protocol import Purpose, parse_seeds
    from energy_iot.reporting.summary import evaluation_table
    from energy_iot.reporting.terminal import make_console

    done = evaluate_detector(
        Purpose.DEVELOPMENT if development else Purpose.EVALUATION,
        seeds=parse_seeds(seeds),
        fleets=fleets,
        meters=meters,
        days=days,
        interval_minutes=interval,
        repeat=repeat,
        page=out,
        command=" ".join(["energy-iot", *sys.argv[1:]]),
        progress=context.obj.progress(),
    )
    make_console().print(evaluation_table(done.summary.rankings))
    if done.page:
        typer.echo(done.page)


# --- servers --------------------------------------------------------------------------------------------------------


@app.command("init-db")
def init_db(
    context: typer.Context,
    users: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="NAME", help="Another user that runs the pipeline; may be repeated."),
    ] = None,
    readers: Annotated[
        list[str] | None, typer.Option("--reader", metavar="NAME", help="A user that only reads; may be repeated.")
    ] = None,
) -> None:
    """Prepare a PostgreSQL server: roles, schemas, rights.

    Acts as the user of ENERGY_IOT_POSTGRES_ADMIN_DSN if that is set, and lets the user of ENERGY_IOT_POSTGRES_DSN run
    the pipeline. May be repeated, and after an upgrade must be.
    """
    from energy_iot.storage.roles import initialise_database

    for membership in initialise_database(context.obj.settings(), users=users or (), readers=readers or ()):
        typer.echo(f"{membership.user}: {', '.join(membership.roles)}")


@serve_app.command("clickhouse")
def serve_clickhouse(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="On the loopback address; 0 takes a free one.")
    ] = None,
) -> None:
    """Serve the embedded ClickHouse by HTTP.

    For dashboards on this machine. The pipeline itself uses it while it runs. Passwords are made anew at each start.
    """
    from energy_iot.serving.clickhouse_http import serve
    from energy_iot.serving.front_file import FILE_NAME, HOST, READER, FrontAddress

    invocation: Invocation = context.obj
    settings = invocation.settings()

    def tell(address: FrontAddress) -> None:
        typer.echo(f"ClickHouse answers on http://{HOST}:{address.port}, database {settings.clickhouse_database}")
        typer.echo(f"user {READER} may read; its password is in {settings.home / FILE_NAME}")
        typer.echo("Ctrl-C stops it")

    serve(settings, port=port, started=tell)


@serve_app.command("airflow")
def serve_airflow(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of its pages, on the loopback address; 0 takes a free one.")
    ] = None,
) -> None:
    """Run Airflow: api-server, scheduler, dag-processor.

    The daily run then starts by itself at 06:00 UTC. Ctrl-C stops all of its processes.
    """
    from energy_iot.logs import configure_logging
    from energy_iot.orchestration.airflow_servers import AirflowAddress, airflow_home, serve

    invocation: Invocation = context.obj
    settings = invocation.settings()
    configure_logging(settings, quiet=invocation.quiet, verbose=invocation.verbose)

    def tell(address: AirflowAddress) -> None:
        typer.echo(f"Airflow answers on {address.url}")
        given = settings.airflow_admin_password is not None
        password = "of the settings" if given else f"{address.password} (until it stops)"
        typer.echo(f"user {address.user}, password {password}")
        typer.echo(f"its logs are in {airflow_home(settings)}; Ctrl-C stops it")

    typer.echo("starting Airflow; it takes half a minute, the first time longer ...")
    serve(settings, port=port, started=tell)


@serve_app.command("superset")
def serve_superset(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of its pages, on the loopback address; 0 takes a free one.")
    ] = None,
) -> None:
    """Run Superset with the four dashboards on what ClickHouse holds.

    Ctrl-C stops all of its processes. The user `analyst` may look at the dashboards and do nothing else.
    """
    from energy_iot.logs import configure_logging
    from energy_iot.serving.superset_server import SECRETS_FILE, SupersetAddress, serve, superset_home

    invocation: Invocation = context.obj
    settings = invocation.settings()
    configure_logging(settings, quiet=invocation.quiet, verbose=invocation.verbose)

    def tell(address: SupersetAddress, is_first: bool) -> None:
        secrets_file = superset_home(settings) / SECRETS_FILE
        typer.echo(f"Superset answers on {address.url}")
        if is_first:
            for user, password in address.passwords.items():
                typer.echo(f"user {user}, password {password}")
            typer.echo(f"they are not shown again; {secrets_file} keeps them, for you alone")
        else:
            place = secrets_file if settings.superset_admin_password is None else "the settings"
            typer.echo(f"users {' and '.join(address.passwords)}; their passwords are in {place}")
        typer.echo(f"its logs are in {superset_home(settings)}; Ctrl-C stops it")

    typer.echo("starting Superset; it takes half a minute, the first time longer ...")
    serve(settings, port=port, started=tell)


@app.command("export-dashboards")
def export_dashboards(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Zip to write, as Superset imports it.")],
) -> None:
    """Write the dashboards of the running Superset to a zip.

    Superset must run: energy-iot serve superset
    """
    from energy_iot.serving.superset_client import export_dashboards, logged_in
    from energy_iot.serving.superset_server import read_address

    with logged_in(read_address(context.obj.settings())) as client:
        typer.echo(f"{export_dashboards(client, file)} dashboards: {file.absolute()}")


@app.command()
def trigger(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help=f"{FILES_HELP} None: the landing folder.", show_default=False),
    ] = None,
    source: Source = None,
    full_refresh: FullRefresh = False,
    rescore: Rescore = None,
    dag: Annotated[
        str, typer.Option("--dag", metavar="DAG", help="Which one, such as energy_model_monthly.")
    ] = "energy_pipeline_daily",
) -> None:
    """Have Airflow do the daily run now, and follow it.

    Airflow must run: energy-iot serve airflow
    """
    from energy_iot.orchestration.airflow_client import trigger_and_follow
    from energy_iot.orchestration.airflow_servers import read_address

    invocation: Invocation = context.obj
    given = {
        "files": [str(file.absolute()) for file in files or ()],
        "source": source,
        "full_refresh": full_refresh,
        "rescore": rescore,
    }
    asked = {name: value for name, value in given.items() if value}
    address = read_address(invocation.settings())
    run = trigger_and_follow(address, asked, dag_id=dag, progress=invocation.progress())
    typer.echo(f"{run.run_id}: {run.state} in {run.seconds:.1f} s" + f"; {run.outcome}" * bool(run.outcome))
    if run.state != "success":
        raise EnergyIoTError(
            f"the run failed in {', '.join(name for name, state in run.tasks.items() if state == 'failed')}",
            fix=f"its log is on {address.url}",
        )


# --- monitoring -----------------------------------------------------------------------------------------------------


@metrics_app.command("serve")
def metrics_serve(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; whoever reaches it reads them.")] = "127.0.0.1",
) -> None:
    """Serve the metrics of runs, data and model.

    Read from the tables at each request; Ctrl-C stops it.
    """
    from energy_iot.logs import configure_logging
    from energy_iot.reporting.metrics import serve

    invocation: Invocation = context.obj
    settings = invocation.settings()
    configure_logging(settings, quiet=invocation.quiet, verbose=invocation.verbose)
    serve(settings, port=port, host=host, started=lambda url: typer.echo(f"metrics are on {url}; Ctrl-C stops it"))


@serve_app.command("monitoring")
def serve_monitoring(
    context: typer.Context,
    interval: Annotated[
        int, typer.Option("--interval", metavar="SECONDS", min=1, help="Between two looks at everything.")
    ] = 15,
) -> None:
    """Run Prometheus, Alertmanager and exporters.

    With the metrics of the pipeline, on this machine only; Grafana too where Docker has its image. Ctrl-C stops all.
    """
    from energy_iot.logs import configure_logging
    from energy_iot.serving.monitoring import Started, monitoring_home, serve

    invocation: Invocation = context.obj
    settings = invocation.settings()
    configure_logging(settings, quiet=invocation.quiet, verbose=invocation.verbose)

    def tell(found: Started) -> None:
        for job in ("prometheus", "alertmanager", "grafana"):
            if job in found.address.ports:
                typer.echo(f"{job.capitalize()} answers on {found.address.url(job)}")
        if found.address.grafana_password:
            typer.echo(f"Grafana's user admin has the password {found.address.grafana_password} (until it stops)")
        typer.echo(f"targets: {', '.join(f'{job} {health}' for job, health in found.targets.items())}")
        typer.echo(f"rules loaded: {found.rules}")
        for line in found.missing:
            typer.echo(f"left out: {line}")
        typer.echo(f"logs are in {monitoring_home(settings)}; Ctrl-C stops it")

    serve(settings, interval_seconds=interval, started=tell)


@metrics_app.command("textfile")
def metrics_textfile(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .prom, in node_exporter's textfile folder.")],
) -> None:
    """Write the metrics to a file.

    For node_exporter's textfile collector, where no other program may listen. Written whole or not at all.

    Example: energy-iot metrics textfile /var/lib/prometheus/node-exporter/energy_iot.prom
    """
    from energy_iot.reporting.metrics import write_textfile

    write_textfile(context.obj.settings(), file)
    typer.echo(file)


# --- containers -----------------------------------------------------------------------------------------------------


@container_app.command("airflow", context_settings={"ignore_unknown_options": True, "help_option_names": []})
def container_airflow(
    context: typer.Context, arguments: Annotated[list[str], typer.Argument(metavar="ARGUMENT...")]
) -> None:
    """Become one of Airflow's programs.

    api-server, scheduler or dag-processor; or any command of Airflow's own, such as db migrate.
    """
    from energy_iot.serving.containers import run_airflow

    run_airflow(context.obj.settings(), arguments)


@container_app.command("superset")
def container_superset(context: typer.Context) -> None:
    """Prepare Superset, and become its web server."""
    from energy_iot.serving.containers import run_superset

    run_superset(context.obj.settings())


@container_app.command("monitoring")
def container_monitoring(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.", show_default=False)],
    targets: Annotated[list[str], typer.Option("--target", metavar="JOB=HOST:PORT", help="Once for each job.")],
) -> None:
    """Write what Prometheus, Alertmanager and Grafana are given."""
    from energy_iot.serving.containers import read_targets, write_monitoring

    write_monitoring(context.obj.settings(), folder, read_targets(targets))


# --- data -----------------------------------------------------------------------------------------------------------


@app.command()
def generate(
    context: typer.Context,
    meters: Annotated[int, typer.Option(min=1, help="Number of meters.")] = 50,
    days: Annotated[int, typer.Option(min=1, help="Days of half-hourly readings.")] = 90,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 1,
    theft_share: Annotated[float, typer.Option(metavar="SHARE", help="Share of meters that are tampered with.")] = 0.08,
    theft_kinds: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="all, or some, with commas between: constant_under_registration, bypass_period, "
            "random_under_registration, average_substitution, peak_hiding, day_reversal, slow_decline, direct_tap.",
        ),
    ] = "all",
    taps_share: Annotated[float, typer.Option(metavar="SHARE", help="Share of transformers with direct taps.")] = 0.05,
    theft_before_start: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of thefts that are older than the readings.")
    ] = 0.0,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path("data/generated"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Generate readings of a fleet, its network and its thieves.

    With weather, load shedding, missing and late reads, vacancies, new meters, known anomalies and known thefts. What
    is true goes to truth.csv and anomalies.csv, which the pipeline never reads.

    Example: energy-iot generate --meters 200 --days 120 --seed 7 --out data/fleet
    """
    from energy_iot.simulation.fleet import generate as generate_fleet
    from energy_iot.simulation.theft import parse_theft_kinds

    invocation: Invocation = context.obj
    made = generate_fleet(
        out,
        meters=meters,
        days=days,
        seed=seed,
        theft_share=theft_share,
        theft_kinds=parse_theft_kinds(theft_kinds),
        taps_share=taps_share,
        theft_before_start_share=theft_before_start,
        progress=invocation.progress(),
        overwrite=overwrite,
    )
    typer.echo(made.readings)


@app.command()
def download(
    context: typer.Context,
    dataset: Annotated[Dataset, typer.Argument(help="uci: 2 M minutes of one household; kaggle: 5,000 half-hours.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path("data/raw"),
    url: Annotated[str | None, typer.Option(help="Another address of the same file.")] = None,
) -> None:
    """Download a public data set.

    Kaggle asks for an account: set ENERGY_IOT_KAGGLE_USERNAME and ENERGY_IOT_KAGGLE_KEY, or see
    `make download-data-manual`.
    """
    from energy_iot.ingestion.download import download as download_file

    invocation: Invocation = context.obj
    settings = invocation.settings()
    written = download_file(
        dataset.value,
        out,
        url=url,
        progress=invocation.progress(),
        kaggle_username=settings.kaggle_username,
        kaggle_key=settings.kaggle_key.get_secret_value() if settings.kaggle_key else None,
    )
    typer.echo(written)


# --- looking --------------------------------------------------------------------------------------------------------


@app.command()
def status(
    context: typer.Context,
    as_json: AsJson = False,
    last: Annotated[int, typer.Option(min=1, help="How many runs to list.")] = 5,
) -> None:
    """Show runs, steps and stored rows."""
    from energy_iot.reporting.status import read_runs, read_status
    from energy_iot.storage.postgres import open_postgres

    settings = context.obj.settings()
    with open_postgres(settings) as postgres:
        found = read_status(settings)
        if as_json:
            _echo_json(found)
            return
        with postgres.connect() as connection:
            runs = read_runs(connection, last=last, somebody_runs=found["holder"] is not None)
    from energy_iot.reporting.summary import rows_table, runs_table, steps_table
    from energy_iot.reporting.terminal import make_console

    console = make_console()
    if not runs:
        console.print("no run yet; start with: energy-iot run FILE", highlight=False)
        return
    if found["holder"]:
        console.print(f"running now: {found['holder']}", highlight=False, markup=False)
    console.print(runs_table(runs), steps_table(found["steps"], title="Newest run"), rows_table(found["rows"]))


@app.command()
def report(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write it.")] = None,
) -> None:
    """Write the HTML report."""
    from energy_iot.reporting.report import write_report

    typer.echo(write_report(context.obj.settings(), out))


@app.command()
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check the installation and say what to fix."""
    from energy_iot.doctor import examine

    findings = examine(context.obj.settings())
    if as_json:
        _echo_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            mark = typer.style("ok  ", fg="green") if finding.ok else typer.style("FAIL", fg="red", bold=True)
            typer.echo(f"{mark} {finding.name}: {finding.found}")
            if not finding.ok:
                typer.echo(f"     fix: {finding.fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def suites(context: typer.Context) -> None:
    """List the rules that data is judged by."""
    from energy_iot.quality.validation import describe_context

    typer.echo(describe_context(context.obj.settings()))


@app.command("data-docs")
def data_docs(context: typer.Context) -> None:
    """Build the Data Docs (HTML)."""
    from energy_iot.quality.validation import build_data_docs

    typer.echo(build_data_docs(context.obj.settings()))


@app.command("airflow", add_help_option=False, context_settings={"ignore_unknown_options": True})
def airflow_command(
    context: typer.Context, arguments: Annotated[list[str], typer.Argument(metavar="ARGUMENT")]
) -> None:
    """Run a command of Airflow's own on the Airflow that runs.

    Example: energy-iot airflow backfill create --dag-id energy_pipeline_daily --from-date 2026-10-01
    --to-date 2026-10-07 --max-active-runs 1
    """
    from energy_iot.orchestration.airflow_servers import run_command

    if exit_code := run_command(context.obj.settings(), arguments):
        raise typer.Exit(exit_code)


@app.command("dbt", add_help_option=False, context_settings={"ignore_unknown_options": True})
def dbt_command(context: typer.Context, arguments: Annotated[list[str], typer.Argument(metavar="ARGUMENT")]) -> None:
    """Run dbt on our project and database.

    Example: energy-iot dbt build --select staging
    """
    from energy_iot.storage.postgres import open_postgres
    from energy_iot.transformation.dbt import run_dbt

    settings = context.obj.settings()
    with open_postgres(settings):
        run_dbt(settings, arguments, echo=True)


@config_app.command("show")
def config_show(context: typer.Context, as_json: AsJson = False) -> None:
    """List settings, values and origins."""
    from energy_iot.settings import setting_origins

    invocation: Invocation = context.obj
    settings = invocation.settings()
    origins = setting_origins(home=invocation.home)
    values = settings.model_dump(mode="json")
    rows = [
        {"setting": name, "value": values[name], "origin": origins[name], "description": field.description}
        for name, field in type(settings).model_fields.items()
    ]
    if as_json:
        _echo_json(rows)
        return
    from energy_iot.reporting.summary import settings_table
    from energy_iot.reporting.terminal import make_console

    make_console().print(settings_table(rows))


# --- shared by commands ---------------------------------------------------------------------------------------------


def _run_steps(
    invocation: Invocation, settings: "Settings", names: tuple[str, ...], options: "RunOptions"
) -> "RunSummary":
    from energy_iot.logs import configure_logging
    from energy_iot.pipeline import run_steps

    configure_logging(settings, quiet=invocation.quiet, verbose=invocation.verbose)
    return run_steps(settings, options, names, progress=invocation.progress())


def _run_and_print(context: typer.Context, names: tuple[str, ...], **asked: Any) -> None:
    from energy_iot.pipeline import RunOptions

    invocation: Invocation = context.obj
    summary = _run_steps(invocation, invocation.settings(), names, RunOptions(**asked))
    if not invocation.quiet:
        _print_steps(summary)


def _run_with_report(invocation: Invocation, options: "RunOptions", names: tuple[str, ...]) -> None:
    """Run steps, then write the report and show what is there now."""
    from energy_iot.reporting.report import write_report
    from energy_iot.storage.postgres import open_postgres

    settings = invocation.settings()
    with open_postgres(settings):  # held open: steps, report and summary share the server
        try:
            summary = _run_steps(invocation, settings, names, options)
        except DataQualityError:
            typer.echo(f"Report: {write_report(settings)}", err=True)
            raise
        written = write_report(settings)
        if not invocation.quiet:
            _print_outcome(invocation, settings, summary)
    typer.echo(f"Report: {written}")


def _print_steps(summary: "RunSummary") -> None:
    from energy_iot.reporting.summary import steps_table
    from energy_iot.reporting.terminal import make_console

    steps = [
        {
            "name": step.step,
            "status": step.status,
            "seconds": step.seconds,
            "mode": step.report.details.get("mode"),
            "rows_in": step.report.rows_in,
            "rows_out": step.report.rows_out,
            "warnings": step.report.warnings,
        }
        for step in summary.steps
    ]
    console = make_console()
    console.print(steps_table(steps, title=f"Run {summary.run_id}: {summary.status} in {summary.seconds:.1f} s"))
    for step in summary.steps:
        if step.report.skipped:
            console.print(f"{step.step} skipped: {step.report.skipped}", highlight=False, markup=False)


def _print_outcome(invocation: Invocation, settings: "Settings", summary: "RunSummary") -> None:
    from energy_iot.reporting.findings import read_findings
    from energy_iot.reporting.status import read_loaded_rows
    from energy_iot.reporting.summary import findings_tables, rows_table
    from energy_iot.reporting.terminal import make_console
    from energy_iot.storage.postgres import open_postgres

    _print_steps(summary)
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        findings = read_findings(connection, top_suspects=SHOWN_FINDINGS, top_nodes=SHOWN_FINDINGS)
    make_console().print(rows_table(read_loaded_rows(settings)), findings_tables(findings, command=invocation.command))


def _echo_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, default=str))


def main() -> None:
    """Console entry point; the only place where an error becomes an exit code."""
    verbose = bool({"--verbose", "-v"} & set(sys.argv))
    # an orderly end, so that the embedded server is stopped; schedulers and `timeout` end programs this way
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        app()
    except EnergyIoTError as error:
        if verbose:
            raise
        _fail(str(error), error.exit_code)
    except SystemExit as end:  # typer has made one of a KeyboardInterrupt already
        if end.code == INTERRUPTED_EXIT_CODE:
            _fail(
                "interrupted\n  fix: finished steps and files are kept; type the same command to go on",
                INTERRUPTED_EXIT_CODE,
            )
        raise
    except Exception as error:
        if verbose:
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}\n  fix: run it again with --verbose and report the traceback",
            1,
        )


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise SystemExit(exit_code)


if __name__ == "__main__":
    main()
