"""The balance of the network: figures by hand, and the same however files arrive."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.ingestion.forget import forget
from energy_iot.ingestion.load_data import ingest_data
from energy_iot.pipeline import ALL_STEPS, RunContext, RunOptions, run_steps
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres, open_postgres
from energy_iot.transformation.dbt import NodeRun, run_dbt
from tests.conftest import new_database

METERS = (
    "meter_id,service_point_id,transformer_id,customer_class,tariff_per_kwh,currency,contracted_power_kw,"
    "valid_from,valid_to"
)
NODES = "node_id,node_type,parent_id,rated_kva,no_load_loss_kw,load_loss_kw,valid_from,valid_to"
FLOWS = "node_id,timestamp,energy_in_kwh"
READINGS = "meter_id,timestamp,consumption_kwh"
OF_READINGS = (
    "stg_meter_readings",
    "int_readings_hourly",
    "int_readings_daily",
    "int_reading_gaps",
    "int_hour_of_week_history",
    "int_consumption_features",
    "mart_consumption_metrics",
    "mart_anomaly_scores",
)
BUILT = ("int_energy_balance", "mart_losses")
KEPT = (
    "staging.stg_meters",
    "staging.stg_network_nodes",
    "staging.stg_network_readings",
    "staging.stg_outages",
    "staging.stg_inspections",
    "intermediate.int_energy_balance",
    "marts.mart_losses",
)


@dataclass
class Utility:
    """A database, and the files that it is sent."""

    settings: Settings
    postgres: Postgres
    folder: Path
    sent: int = 0

    def send(self, header: str, lines: list[str]) -> str:
        """Load a file; returns its name."""
        self.sent += 1
        path = self.folder / f"file_{self.sent}.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        ingest_data(RunContext(self.settings, "run", RunOptions(files=(path,))))
        return path.name

    def forget(self, name: str) -> None:
        forget(RunContext(self.settings, "run", RunOptions(forget_file=name)))

    def build(self, *options: str) -> dict[str, NodeRun]:
        """Bring what the losses follow from up to date."""
        select = ["--select", "staging", "+mart_losses"]
        nodes = run_dbt(self.settings, ["run", "--no-write-json", *select, *options])
        return {node.name: node for node in nodes}

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.postgres.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def balance(self, day: date) -> dict[str, dict[str, Any]]:
        """By node."""
        with self.postgres.connect() as connection:
            cursor = connection.execute("select * from intermediate.int_energy_balance where reading_date = %s", (day,))
            names = [column.name for column in cursor.description or ()]
            return {row[0]: dict(zip(names, row, strict=True)) for row in cursor}

    def contents(self) -> dict[str, list[tuple[object, ...]]]:
        """All that follows from these files, to the last digit."""
        return {table: self.rows(f"select t::text from {table} as t order by 1") for table in KEPT}

    def empty(self) -> None:
        with self.postgres.connect() as connection:
            tables = connection.execute("select tablename from pg_tables where schemaname = 'raw_data'").fetchall()
            names = ", ".join(f"raw_data.{name}" for (name,) in tables)
            connection.execute(f"truncate {names}, quality.derived_states restart identity".encode())


@pytest.fixture(scope="module")
def opened(postgres_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Utility]:
    """One database and home for this module: dbt reads its project anew, for seconds, for each."""
    with new_database(postgres_server) as dsn:
        settings = Settings(home=tmp_path_factory.mktemp("home"), postgres_dsn=dsn)
        with open_postgres(settings) as postgres:
            yield Utility(settings, postgres, tmp_path_factory.mktemp("files"))


# --- figures by hand --------------------------------------------------------------------------------------------------

FIRST = date(2024, 1, 28)
(VARIED, HALF, SILENT, NODE_GAP, OUTAGE, REPLACED, FEW_METERS, FEW_FLOWS) = (FIRST + timedelta(n) for n in range(8))
KWH = {"a": 1.0, "b": 2.0, "c": 1.0, "d": 5.0}  # an hour
TAP_KWH = 1.5
RATED_KVA = {"t1": 100.0, "t2": 50.0, "f": 1000.0}
NO_LOAD_KW = {"t1": 0.3, "t2": 0.2, "f": 0.0}
LOAD_LOSS_KW = {"t1": 2.0, "t2": 1.0, "f": 30.0}


def level(day: date, hour: int) -> float:
    return 0.5 + hour / 10 if day == VARIED else 1.0


def flow(node: str, day: date, hour: int) -> float:
    """Into the node in an hour, kWh; technical losses aside, which are not what is tested by it."""
    if day == OUTAGE and hour < 6:
        return 0
    t1, t2 = 4 * level(day, hour) + TAP_KWH + 0.3, 5 * level(day, hour) + 0.2
    return {"t1": t1, "t2": t2, "f": t1 + t2 + 0.1}[node]


def read_hours(node: str, day: date) -> list[int]:
    return list(range({("t1", NODE_GAP): 18, ("t1", FEW_FLOWS): 6}.get((node, day), 24)))


def meter_hours(meter: str, day: date) -> list[int]:
    if (meter, day) in {("b", SILENT), ("a", FEW_METERS), ("b", FEW_METERS)}:
        return []
    if (meter, day) == ("b", HALF):
        return list(range(0, 24, 2))
    return list(range(6, 24)) if day == OUTAGE and meter in "bc" else list(range(24))


@pytest.fixture(scope="module")
def city(opened: Utility) -> Utility:
    """Eight days of two transformers on a feeder, each day with another lack; a tap on t1 that no meter sees."""
    opened.empty()
    days = [FIRST + timedelta(number) for number in range(8)]
    opened.send(
        METERS,
        [
            f"a,sa,t1,residential,100,XOF,2,2020-01-01,{REPLACED}",
            f"a2,sa,t1,residential,100,XOF,2,{REPLACED},",
            "b,sb,t1,residential,100,XOF,4,2020-01-01,",
            "c,sc,t1,residential,130,XOF,2,2020-01-01,",
            "d,sd,t2,commercial,200,XOF,10,2020-01-01,",
        ],
    )
    opened.send(
        NODES,
        ["s,substation,,,,,2000-01-01,", "f,feeder,s,1000,0,30,2000-01-01,"]
        + [f"{t},transformer,f,{RATED_KVA[t]},{NO_LOAD_KW[t]},{LOAD_LOSS_KW[t]},2000-01-01," for t in ("t1", "t2")],
    )
    opened.send(
        FLOWS,
        [f"{n},{day} {h:02}:00:00,{flow(n, day, h)}" for n in RATED_KVA for day in days for h in read_hours(n, day)],
    )
    lines = []
    for meter, kwh in KWH.items():
        for day in days:
            name = "a2" if meter == "a" and day >= REPLACED else meter
            for hour in meter_hours(meter, day):
                used = 0 if day == OUTAGE and hour < 6 else kwh * level(day, hour)
                lines.append(f"{name},{day} {hour:02}:00:00,{used}")
    lines.append(f"a,{REPLACED} 00:00:00,0.7")  # the old meter's last: it counts no more on this day
    opened.send(READINGS, lines)
    opened.build()
    return opened


def own_loss(node: str, day: date) -> float:
    hours = [hour for hour in read_hours(node, day) if flow(node, day, hour)]
    load = sum((flow(node, day, hour) / RATED_KVA[node]) ** 2 for hour in hours)
    return NO_LOAD_KW[node] * len(hours) + LOAD_LOSS_KW[node] * load


@pytest.mark.parametrize("day", [VARIED, HALF, SILENT, OUTAGE, REPLACED])
def test_customers_gaps_and_outages_are_not_taken_for_theft(city: Utility, day: date) -> None:
    """On all these days the customers used what they use; what t1 lacks is its tap, up to the losses it was given."""
    live_hours = 18 if day == OUTAGE else 24
    used = sum(level(day, hour) for hour in range(24)) if day == VARIED else live_hours
    found = city.balance(day)
    for node, per_hour in {"t1": 4, "t2": 5, "f": 9}.items():
        into = sum(flow(node, day, hour) for hour in range(24))
        assert found[node]["energy_in_kwh"] == pytest.approx(into)
        assert found[node]["energy_metered_kwh"] == pytest.approx(per_hour * used)
    technical = {node: own_loss(node, day) for node in RATED_KVA}
    technical["f"] += technical["t1"] + technical["t2"]
    assert {node: row["technical_loss_kwh"] for node, row in found.items()} == pytest.approx(technical)
    lost = {"t1": (TAP_KWH + 0.3) * live_hours, "t2": 0.2 * live_hours, "f": (TAP_KWH + 0.6) * live_hours}
    for node, row in found.items():
        assert row["unexplained_kwh"] == pytest.approx(lost[node] - technical[node])
        assert row["unexplained_share"] == pytest.approx(row["unexplained_kwh"] / row["energy_in_kwh"])


def test_a_complete_day(city: Utility) -> None:
    t1, feeder = city.balance(VARIED)["t1"], city.balance(VARIED)["f"]
    assert (t1["meter_count"], t1["completeness"], t1["energy_estimated_kwh"]) == (3, 1, 0)
    assert (t1["node_type"], t1["parent_id"], t1["currency"]) == ("transformer", "f", "XOF")
    assert t1["tariff_per_kwh"] == pytest.approx((3 * 100 + 130) / 4)
    assert (feeder["meter_count"], feeder["parent_id"]) == (4, "s")
    assert feeder["tariff_per_kwh"] == pytest.approx((3 * 100 + 130 + 5 * 200) / 9)


@pytest.mark.parametrize(
    ("day", "estimated_kwh", "completeness"),
    [(HALF, 24, 5 / 6), (SILENT, 48, 2 / 3), (OUTAGE, 0, 1), (NODE_GAP, 0, 3 / 4)],
)
def test_what_is_estimated_and_how_complete_it_is(
    city: Utility, day: date, estimated_kwh: float, completeness: float
) -> None:
    t1 = city.balance(day)["t1"]
    assert t1["energy_estimated_kwh"] == pytest.approx(estimated_kwh)
    assert t1["completeness"] == pytest.approx(completeness)


def test_customers_count_for_the_time_that_the_node_read(city: Utility) -> None:
    t1 = city.balance(NODE_GAP)["t1"]
    assert t1["energy_metered_kwh"] == pytest.approx(4 * 18)
    assert t1["technical_loss_kwh"] == pytest.approx(own_loss("t1", NODE_GAP))
    assert t1["unexplained_kwh"] == pytest.approx((TAP_KWH + 0.3) * 18 - own_loss("t1", NODE_GAP))
    feeder = city.balance(NODE_GAP)["f"]  # whose own readings are complete
    assert feeder["energy_metered_kwh"] == pytest.approx(9 * 24)
    whole = own_loss("t1", NODE_GAP) * 24 / 18 + own_loss("t2", NODE_GAP) + own_loss("f", NODE_GAP)
    assert feeder["technical_loss_kwh"] == pytest.approx(whole)


@pytest.mark.parametrize("day", [FEW_METERS, FEW_FLOWS])
def test_a_day_of_estimates_is_not_judged(city: Utility, day: date) -> None:
    found = city.balance(day)
    assert (found["t1"]["unexplained_kwh"], found["t1"]["unexplained_share"]) == (None, None)
    assert found["t2"]["unexplained_kwh"] == pytest.approx(0.2 * 24 - own_loss("t2", day))


def test_losses_of_a_month_are_those_of_its_judged_days(city: Utility) -> None:
    judged = [VARIED, HALF, SILENT, NODE_GAP]
    days = [city.balance(day)["t1"] for day in judged]
    (found,) = city.rows(
        "select energy_in_kwh, energy_metered_kwh, technical_loss_kwh, unexplained_kwh, unexplained_value, currency, "
        "meter_count, completeness, unexplained_share from marts.mart_losses "
        "where node_id = 't1' and month_start = '2024-01-01'"
    )
    lost = sum(day["unexplained_kwh"] for day in days)
    assert found[:4] == pytest.approx(
        [sum(day[name] for day in days) for name in ("energy_in_kwh", "energy_metered_kwh", "technical_loss_kwh")]
        + [lost]
    )
    assert found[4] == pytest.approx(lost * 107.5)
    assert found[5:7] == ("XOF", 3)
    assert found[7] == pytest.approx(sum(day["completeness"] for day in days) / 31)
    assert city.rows("select count(*) from marts.mart_losses") == [(6,)]  # three nodes, two months


def test_the_rules_of_the_models_hold(city: Utility) -> None:
    tests = run_dbt(city.settings, ["test", "--select", "int_energy_balance", "mart_losses", "stg_meters"])
    assert len(tests) > 20
    assert {node.status for node in tests} == {"pass"}


# --- what a change makes anew -----------------------------------------------------------------------------------------


def test_a_registry_file_leaves_all_of_readings_alone(city: Utility) -> None:
    """Also one that is sent again as it was: then not even the balance is anything new."""
    before = city.contents()
    lines = [
        f"a,sa,t1,residential,100,XOF,2,2020-01-01,{REPLACED}",
        "d,sd,t2,commercial,200,XOF,10,2020-01-01,",
    ]
    name = city.send(METERS, lines)
    nodes = city.build()
    assert {node.message.split()[0] for node in nodes.values()} == {"INSERT"}
    assert {name: node.rows for name, node in nodes.items() if node.rows} == {"stg_meters": 5}
    assert city.contents() == before
    city.forget(name)
    city.build()

    city.send(METERS, [f"d,sd,t1,commercial,200,XOF,10,{REPLACED},"])  # moved
    nodes = city.build()
    assert {name: node.rows for name, node in nodes.items() if node.rows} == {
        "stg_meters": 6,
        "int_energy_balance": 9,  # three days of three nodes
        "mart_losses": 3,
    }
    assert [city.balance(day)["t1"]["meter_count"] for day in (OUTAGE, REPLACED)] == [3, 4]


@pytest.mark.heavy
def test_the_power_factor_is_of_no_concern_to_readings(city: Utility) -> None:
    settings = city.settings
    lossless = city.balance(VARIED)["t1"]["technical_loss_kwh"]
    city.settings = settings.model_copy(update={"power_factor": 0.8})
    nodes = city.build()
    city.settings = settings
    assert {name for name, node in nodes.items() if node.message.startswith("SELECT")} == set(BUILT)
    t1 = city.balance(VARIED)["t1"]["technical_loss_kwh"]
    assert t1 - 0.3 * 24 == pytest.approx((lossless - 0.3 * 24) / 0.8**2)


@pytest.mark.heavy
def test_a_run_with_a_registry_leaves_readings_scores_and_marts_alone(
    settings: Settings, postgres: Postgres, tmp_path: Path
) -> None:
    """Of all that the pipeline derives, only what follows from the registry is made; and ClickHouse gets the losses."""
    rng = random.Random(3)
    days = [date(2024, 1, 20) + timedelta(number) for number in range(20)]
    hours = [f"{day} {hour:02}:00:00" for day in days for hour in range(24)]
    readings = tmp_path / "readings.csv"
    readings.write_text(
        "\n".join([READINGS, *(f"m{m},{at},{rng.gammavariate(2, 0.3):.3f}" for m in range(8) for at in hours)]) + "\n"
    )
    steps = tuple(name for name in ALL_STEPS if not name.startswith("ge_"))
    first = run_steps(settings, RunOptions(files=(readings,)), steps)
    assert first.steps[-1].report.details["tables"]["losses"]["rows"] == 0
    network = tmp_path / "network"
    network.mkdir()
    (network / "meters.csv").write_text(
        "\n".join([METERS, *(f"m{m},s{m},t{m % 2},residential,100,XOF,3,2020-01-01," for m in range(8))]) + "\n"
    )
    (network / "nodes.csv").write_text(
        "\n".join(
            [NODES, *(f"t{t},transformer,f,50,0.1,1,2020-01-01," for t in range(2)), "f,feeder,,900,0,9,2020-01-01,"]
        )
        + "\n"
    )
    (network / "flows.csv").write_text("\n".join([FLOWS, *(f"t{t},{at},3.5" for t in range(2) for at in hours)]) + "\n")
    second = {step.step: step.report for step in run_steps(settings, RunOptions(files=(network,)), steps).steps}
    layers = [second[f"dbt_run_{layer}"].details for layer in ("staging", "intermediate", "marts")]
    written = {name: model["rows"] for layer in layers for name, model in layer["models"].items()}
    assert {name: written[name] for name in OF_READINGS} == dict.fromkeys(OF_READINGS, 0)
    assert (written["int_energy_balance"], written["mart_losses"]) == (40, 4)
    assert "scored_now" not in second["ml_score"].details
    published = second["sync_to_clickhouse"].details["tables"]
    assert published["losses"]["rows"] == published["losses"]["rows_sent"] == 4  # two transformers, two months
    assert published["anomaly_scores"]["rows_sent"] == published["consumption_metrics"]["rows_sent"] == 0


@dataclass
class RandomCity:
    """Files as they come to a utility that keeps its books badly."""

    rng: random.Random
    days: list[date] = field(default_factory=lambda: [date(2024, 1, 29) + timedelta(n) for n in range(5)])
    meters: list[str] = field(default_factory=lambda: [f"m{n}" for n in range(8)])
    transformers: list[str] = field(default_factory=lambda: ["t1", "t2", "t3"])
    feeders: list[str] = field(default_factory=lambda: ["f1", "f2"])
    is_new: bool = True  # its first files are of all meters, nodes and days

    def file(self) -> tuple[str, list[str]]:
        """Any file."""
        makers: list[Callable[[], tuple[str, list[str]]]] = [self.registry, self.nodes, self.flows, self.readings]
        return self.rng.choice(makers)()

    def validity(self) -> str:
        if self.is_new:
            return "2020-01-01,"
        first = self.rng.choice([date(2020, 1, 1), *self.days])
        last = self.rng.choice(["", "", "", *(day for day in self.days if day >= first)])
        return f"{first},{last}"

    def registry(self) -> tuple[str, list[str]]:
        rng = self.rng
        lines = [
            f"{meter},s{meter},{rng.choice([*self.transformers, 'f1', 'unknown', ''])},"
            f"{rng.choice(['residential', 'commercial', ''])},{rng.choice(['', 96.5, 120])},"
            f"{rng.choice(['XOF', 'XOF', 'GHS'])},{rng.choice(['', 0, 2.2, 5])},{self.validity()}"
            for meter in self.some(self.meters)
        ]
        return METERS, lines

    def nodes(self) -> tuple[str, list[str]]:
        rng = self.rng
        lines = [
            f"{node},transformer,{rng.choice(self.feeders)},{rng.choice(['', 0, 50])},{rng.choice(['', 0.2])},"
            f"{rng.choice([1.1, ''])},{self.validity()}"
            for node in self.some(self.transformers)
        ]
        lines += [
            f"{node},feeder,{rng.choice(['s', 'f1'])},900,0,27,{self.validity()}" for node in self.some(self.feeders)
        ]
        return NODES, lines

    def flows(self) -> tuple[str, list[str]]:
        return FLOWS, self.values([*self.transformers, *self.feeders])

    def readings(self) -> tuple[str, list[str]]:
        return READINGS, self.values(self.meters)

    def values(self, names: list[str]) -> list[str]:
        days, rng = self.some(self.days), self.rng
        return [
            f"{name},{day} {hour:02}:00:00,{rng.choice([0, 0, round(rng.gammavariate(2, 0.7), 3), rng.random() / 3])}"
            for name in self.some(names)
            for day in days
            for hour in range(0, 24, 2)
            if rng.random() < 0.8
        ] or [f"{names[0]},{self.days[0]} 00:00:00,1"]

    def some(self, values: list[Any]) -> list[Any]:
        return values if self.is_new else self.rng.sample(values, self.rng.randint(1, len(values)))


def check(utility: Utility, seed: int, builds: int) -> None:
    """Files come, and some are forgotten; after each build the tables are what a full refresh makes of them."""
    utility.empty()
    city = RandomCity(random.Random(seed))
    loaded = [utility.send(*make()) for make in (city.registry, city.nodes, city.flows, city.readings)]
    modes = [utility.build()]
    city.is_new = False
    for _ in range(builds):
        for _ in range(city.rng.randint(1, 3)):
            if loaded and city.rng.random() < 0.25:
                utility.forget(loaded.pop(city.rng.randrange(len(loaded))))
            else:
                loaded.append(utility.send(*city.file()))
        modes.append(utility.build())
    assert [{node.message.split()[0] for node in nodes.values()} for nodes in modes] == [{"SELECT"}] + [
        {"INSERT"}
    ] * builds
    incremental = utility.contents()
    utility.build("--full-refresh")
    assert utility.contents() == incremental


def judged(utility: Utility) -> int:
    """Days of nodes with unexplained energy."""
    ((count,),) = utility.rows("select count(*) from intermediate.int_energy_balance where unexplained_kwh <> 0")
    return int(str(count))


def test_incremental_equals_whole(opened: Utility) -> None:
    check(opened, seed=4, builds=2)
    assert judged(opened) > 5, "too little is left to compare"


@pytest.mark.heavy
@hypothesis_settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(seed=st.integers(0, 10**6))
def test_incremental_equals_whole_on_any_files(opened: Utility, seed: int) -> None:
    check(opened, seed, builds=3)
