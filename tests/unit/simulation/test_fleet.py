"""The files `generate` writes: shape, determinism, stability under growth, labels, refusals."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from energy_iot.errors import UsageError
from energy_iot.reporting.progress import Advance, Progress
from energy_iot.simulation.anomalies import Kind
from energy_iot.simulation.block import METERS_PER_BLOCK
from energy_iot.simulation.circumstances import Cause
from energy_iot.simulation.fleet import DEFAULT_START, INTERVALS_MINUTES, FleetFiles, generate
from energy_iot.simulation.theft import TheftKind
from energy_iot.simulation.writer import FILES, READINGS_FILE, FleetWriter

ROOT = Path(__file__).resolve().parents[3]

seeds = st.integers(0, 2**64)
starts = st.dates(date(2005, 1, 1), date(2024, 12, 1))
meter_counts = st.integers(1, METERS_PER_BLOCK + 6)
day_counts = st.integers(1, 5)
intervals = st.sampled_from(INTERVALS_MINUTES[2:])  # the shortest ones only cost time
# an empty file tells no types
OVERRIDES = {
    "is_theft": pl.Boolean,
    "stolen_kwh": pl.Float64,
    "energy_in_kwh": pl.Float64,
    "start_time": pl.String,
    "timestamp": pl.String,
}
few = settings(max_examples=12, deadline=None)


@contextmanager
def fleet(**arguments: object) -> Iterator[tuple[FleetFiles, pl.DataFrame, pl.DataFrame]]:
    """A fleet in a folder of its own, and both files read back."""
    with tempfile.TemporaryDirectory() as folder:
        files = generate(Path(folder) / "fleet", **arguments)
        yield (
            files,
            pl.read_csv(files.readings).with_columns(pl.col("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S")),
            pl.read_csv(
                files.anomalies, schema_overrides={"start": pl.Datetime, "end": pl.Datetime, "readings": pl.UInt32}
            ),
        )


@few
@given(meters=meter_counts, days=day_counts, seed=seeds, start=starts, interval_minutes=intervals)
@example(meters=1, days=1, seed=0, start=date(2024, 2, 29), interval_minutes=60)
def test_readings_are_sound(meters: int, days: int, seed: int, start: date, interval_minutes: int) -> None:
    with fleet(meters=meters, days=days, seed=seed, start=start, interval_minutes=interval_minutes) as (files, got, _):
        assert got.height == files.reading_count
        assert got.null_count().sum_horizontal().item() == 0
        assert {meter_id.removesuffix("-2") for meter_id in got["meter_id"]} == {
            f"M{number:06d}" for number in range(1, meters + 1)
        }
        assert not got.select("meter_id", "timestamp").is_duplicated().any()
        # by service point, then time; but for late readings, which stand behind newer ones
        place = got["meter_id"].str.strip_suffix("-2")
        assert place.is_sorted()
        newest = got.with_columns(newest=pl.col("timestamp").cum_max().over(place.alias("place")))["newest"]
        assert (got["timestamp"] < newest).mean() < 0.1

        midnight = datetime(start.year, start.month, start.day)
        since = got["timestamp"] - midnight
        assert since.min() >= timedelta(0)
        assert since.max() < timedelta(days=days)
        assert (since.dt.total_minutes() % interval_minutes == 0).all()
        possible = meters * days * 1440 // interval_minutes
        assert 0.5 * possible < got.height <= possible

        assert got["consumption_kwh"].min() >= 0
        industry = pl.read_csv(files.meters).filter(pl.col("customer_class") == "industrial")["meter_id"].implode()
        in_industry = pl.col("meter_id").is_in(industry)
        assert (got.filter(~in_industry)["consumption_kwh"].max() or 0) < 20 * interval_minutes / 60
        assert (got.filter(in_industry)["consumption_kwh"].max() or 0) < 180 * interval_minutes / 60
        assert (got["consumption_kwh"] * 1000 - (got["consumption_kwh"] * 1000).round()).abs().max() < 1e-6
        assert got["temperature_c"].is_between(5, 50).all()
        assert got["humidity_pct"].is_between(0, 100).all()
        assert got["wind_speed_kmh"].is_between(0, 120).all()
        assert got.filter(pl.col("voltage_v") != 0)["voltage_v"].is_between(190, 250).all()
        assert set(got["anomaly_label"]) <= {"Normal", "Abnormal"}


@few
@given(meters=meter_counts, days=day_counts, seed=seeds, start=starts, interval_minutes=intervals)
def test_the_same_arguments_give_the_same_bytes(
    meters: int, days: int, seed: int, start: date, interval_minutes: int
) -> None:
    arguments = {
        "meters": meters,
        "days": days,
        "seed": seed,
        "start": start,
        "interval_minutes": interval_minutes,
    }
    with fleet(**arguments) as (first, *_), fleet(**arguments) as (second, *_):
        for name in FILES:
            assert (first.readings.parent / name).read_bytes() == (second.readings.parent / name).read_bytes()


@few
@given(meters=meter_counts, more=st.integers(1, METERS_PER_BLOCK), days=day_counts, seed=seeds)
def test_more_meters_leave_the_earlier_ones_as_they_were(meters: int, more: int, days: int, seed: int) -> None:
    with (
        fleet(meters=meters, days=days, seed=seed) as (small, *_),
        fleet(meters=meters + more, days=days, seed=seed) as (large, *_),
    ):
        assert large.readings.read_bytes().startswith(small.readings.read_bytes())
        assert large.anomalies.read_bytes().startswith(small.anomalies.read_bytes())
        assert large.meters.read_bytes().startswith(small.meters.read_bytes())


@few
@given(days=day_counts, more=st.integers(1, 40), seed=seeds, start=starts, interval_minutes=intervals)
def test_more_days_leave_the_earlier_ones_as_they_were(
    days: int, more: int, seed: int, start: date, interval_minutes: int
) -> None:
    arguments = {"meters": 5, "seed": seed, "start": start, "interval_minutes": interval_minutes}
    with fleet(days=days, **arguments) as (few, short, _), fleet(days=days + more, **arguments) as (many, long, _):
        end = datetime(start.year, start.month, start.day) + timedelta(days=days)
        assert long.filter(pl.col("timestamp") < end).equals(short)
        short_flows, long_flows = (pl.read_csv(files.network_readings) for files in (few, many))
        assert long_flows.filter(pl.col("timestamp") < f"{end}").equals(short_flows)


def test_another_seed_is_another_city() -> None:
    with fleet(meters=3, days=2, seed=1) as (_, one, _), fleet(meters=3, days=2, seed=2) as (_, other, _):
        joined = one.join(other, on=["meter_id", "timestamp"])
        assert joined.height > 200
        for column in ("consumption_kwh", "temperature_c", "voltage_v"):
            assert (joined[column] != joined[f"{column}_right"]).mean() > 0.8


@few
@given(meters=st.sampled_from([3, METERS_PER_BLOCK, METERS_PER_BLOCK + 2]), days=st.integers(1, 35), seed=seeds)
def test_labels_and_the_list_of_anomalies_agree(meters: int, days: int, seed: int) -> None:
    with fleet(meters=meters, days=days, seed=seed) as (files, readings, anomalies):
        assert set(anomalies["kind"]) <= {kind.name.lower() for kind in Kind} - {"normal"}
        inside = readings.join(anomalies, on="meter_id").filter(
            pl.col("timestamp") >= pl.col("start"), pl.col("timestamp") < pl.col("end")
        )
        abnormal = readings.filter(pl.col("anomaly_label") == "Abnormal")
        # each abnormal reading lies in exactly one episode, and each reading of an episode is labelled
        in_time = abnormal.sort("meter_id", "timestamp")  # late readings stand behind newer ones
        assert inside.select(readings.columns).sort("meter_id", "timestamp").equals(in_time)
        counted = inside.group_by("meter_id", "start").len("seen")
        joined = anomalies.join(counted, on=["meter_id", "start"], how="left")
        assert (joined["readings"] == joined["seen"]).all()
        assert joined["seen"].null_count() == 0
        assert files.anomalous_reading_count == abnormal.height
        assert files.episode_count == anomalies.height
        # an episode starts and ends with a reading that was seen
        ends = inside.group_by("meter_id", "start", "end").agg(
            first=pl.col("timestamp").min(), last=pl.col("timestamp").max()
        )
        assert (ends["first"] == ends["start"]).all()
        assert (ends["last"] + timedelta(minutes=30) == ends["end"]).all()


def test_without_supply_a_meter_is_silent_or_reports_nothing_at_no_volts() -> None:
    with fleet(meters=METERS_PER_BLOCK, days=45, seed=5, start=date(2024, 4, 1)) as (_, readings, _):
        dead = readings.filter(pl.col("voltage_v") == 0)
        assert dead.height > 100
        assert (dead["consumption_kwh"] == 0).all()
        with_battery = dead["meter_id"].unique()
        assert 2 <= len(with_battery) <= METERS_PER_BLOCK // 2
        completeness = (
            readings.group_by("meter_id")
            .agg((pl.len() / (45 * 48)).alias("share"))
            .with_columns(battery=pl.col("meter_id").is_in(with_battery.implode()))
        )
        silent, reporting = (completeness.filter(pl.col("battery") == battery)["share"] for battery in (False, True))
        assert 0.90 < silent.mean() < reporting.mean() < 1


def test_default_period_starts_on_a_monday_and_lies_in_the_past() -> None:
    assert DEFAULT_START.weekday() == 0
    assert DEFAULT_START + timedelta(days=180) < datetime.now(UTC).date()


def test_the_long_format_reads_every_column() -> None:
    mapping = yaml.safe_load((ROOT / "configs" / "sources" / "long_format.yml").read_text())
    known = {spec["column"] for spec in mapping["readings"].values()}
    required = {
        *mapping["timestamp"]["columns"],
        mapping["meter"]["column"],
        mapping["readings"]["consumption"]["column"],
    }
    assert len(known) > 5
    assert mapping["delimiter"] == ","
    with fleet(meters=1, days=1, seed=0) as (files, *_):
        header = files.readings.read_text().splitlines()[0].split(",")
    assert required <= set(header) <= known | required


class Counting(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done: list[int] = []

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        self.total = total
        yield self.done.append


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    progress = Counting()
    generate(tmp_path, meters=METERS_PER_BLOCK + 1, days=2, seed=0, progress=progress)
    assert progress.total == (METERS_PER_BLOCK + 1) * 2 * 48
    assert progress.done == [METERS_PER_BLOCK * 2 * 48, 2 * 48]


@pytest.mark.parametrize(
    ("wrong", "problem", "fix"),
    [
        ({"meters": 0}, "0 meters", "--meters"),
        ({"meters": -3}, "-3 meters", "--meters"),
        ({"days": 0}, "0 days", "--days"),
        ({"seed": -1}, "seed -1", "--seed"),
        ({"interval_minutes": 7}, "every 7 minutes", "5, 10, 15, 20, 30, 60"),
        ({"days": 100_000}, "future", "--days"),
        ({"start": date(2999, 1, 1)}, "future", "start at"),
    ],
)
def test_senseless_arguments_are_refused(tmp_path: Path, wrong: dict[str, object], problem: str, fix: str) -> None:
    arguments = {"meters": 1, "days": 1, "seed": 0} | wrong
    with pytest.raises(UsageError) as caught:
        generate(tmp_path / "fleet", **arguments)
    assert problem in caught.value.problem
    assert fix in caught.value.fix
    assert not (tmp_path / "fleet").exists()


def test_yesterday_is_the_last_day_possible(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    files = generate(tmp_path, meters=1, days=2, seed=0, start=today - timedelta(days=2))
    last = files.readings.read_text().splitlines()[-1].split(",")[1]
    assert datetime.fromisoformat(last).date() < today
    with pytest.raises(UsageError, match="future"):
        generate(tmp_path, meters=1, days=3, seed=0, start=today - timedelta(days=2), overwrite=True)


def test_present_files_are_kept_unless_told(tmp_path: Path) -> None:
    files = generate(tmp_path, meters=1, days=1, seed=0)
    before = files.readings.read_bytes()
    with pytest.raises(UsageError) as caught:
        generate(tmp_path, meters=1, days=1, seed=1)
    assert str(files.readings) in caught.value.problem
    assert "--overwrite" in caught.value.fix
    assert files.readings.read_bytes() == before
    generate(tmp_path, meters=1, days=1, seed=1, overwrite=True)
    assert files.readings.read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        generate(tmp_path / "file", meters=1, days=1, seed=0)
    assert (tmp_path / "file").read_text() == ""


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    class Interrupting(Progress):
        @contextmanager
        def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
            def advance(amount: int) -> None:
                assert (tmp_path / "readings.csv.partial").stat().st_size > 0
                raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, meters=1, days=1, seed=0, progress=Interrupting())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "readings.csv.partial").symlink_to(full)
    with pytest.raises(UsageError, match="No space left"), FleetWriter(tmp_path) as writer:
        writer.write({READINGS_FILE: b"a row\n" * 100_000})
    assert list(tmp_path.iterdir()) == []


@few
@given(
    meters=meter_counts,
    days=st.integers(1, 45),
    seed=seeds,
    start=starts,
    theft_share=st.floats(0, 1),
    theft_kinds=st.frozensets(st.sampled_from(list(TheftKind))),
    taps_share=st.floats(0, 1),
    before=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_registry_network_and_truth_are_sound(
    meters: int,
    days: int,
    seed: int,
    start: date,
    theft_share: float,
    theft_kinds: frozenset[TheftKind],
    taps_share: float,
    before: float,
) -> None:
    options = {"theft_share": theft_share, "theft_kinds": theft_kinds, "taps_share": taps_share}
    with fleet(
        meters=meters,
        days=days,
        seed=seed,
        start=start,
        interval_minutes=60,
        theft_before_start_share=before,
        **options,
    ) as (files, readings, _):
        registry, nodes, flows, outages, truth = (
            pl.read_csv(path, infer_schema_length=None, schema_overrides=OVERRIDES)
            for path in (files.meters, files.network_nodes, files.network_readings, files.outages, files.truth)
        )
        counts = files.counts
        assert registry.height == counts.meter_count
        assert registry["service_point_id"].n_unique() == meters
        assert set(readings["meter_id"]) <= set(registry["meter_id"])
        assert registry["transformer_id"].is_in(nodes["node_id"].implode()).all()
        assert nodes.height == counts.node_count
        metered_nodes = nodes.filter(pl.col("node_type") != "substation")["node_id"]
        assert set(flows["node_id"]) == set(metered_nodes)
        assert flows.height == counts.network_reading_count <= len(metered_nodes) * days * 24
        assert flows["energy_in_kwh"].min() >= 0
        assert flows["energy_in_kwh"].null_count() == 0
        assert not flows.select("node_id", "timestamp").is_duplicated().any()
        assert outages.height == counts.outage_count
        assert set(outages["node_id"]) <= set(metered_nodes)

        first, last = f"{start} 00:00:00", f"{start + timedelta(days=days)} 00:00:00"
        for frame in (flows.rename({"timestamp": "start_time"}), outages):
            assert ((frame["start_time"] >= first) & (frame["start_time"] < last)).all()
        thefts, innocent = truth.filter("is_theft"), truth.filter(~pl.col("is_theft"))
        assert thefts.height == counts.theft_count + counts.tap_count
        assert innocent.height == counts.innocent_count
        assert thefts["stolen_kwh"].sum() == pytest.approx(counts.stolen_kwh)
        assert set(thefts["kind"]) <= theft_kinds
        assert thefts["subject_id"].is_unique().all()
        of_meters = pl.col("subject_type") == "meter"
        assert set(truth.filter(of_meters)["subject_id"]) <= set(registry["meter_id"])
        assert set(truth.filter(~of_meters)["subject_id"]) <= set(nodes["node_id"])
        assert set(innocent["kind"]) <= set(Cause)
        begun = thefts["start_time"]
        assert (begun < last).all()
        if before == 0:
            assert (begun >= first).all()
        if before == 1 or days < 24:
            assert (begun < first).all()
        assert (innocent["start_time"] >= first).all()
        takes = thefts.filter(~pl.col("kind").is_in([TheftKind.AVERAGE_SUBSTITUTION, TheftKind.DAY_REVERSAL]))
        assert (takes["stolen_kwh"] >= 0).all()
        assert (thefts.filter(kind=TheftKind.DAY_REVERSAL)["stolen_kwh"] == 0).all()


def test_a_part_of_a_fleet_is_that_part_of_a_larger_one() -> None:
    """What the registry and the truth say of a meter does not depend on how many there are."""
    arguments = {"days": 40, "seed": 3, "interval_minutes": 60, "theft_share": 0.3, "taps_share": 1.0}
    with fleet(meters=80, **arguments) as (small, *_), fleet(meters=140, **arguments) as (large, *_):
        few_truths, many_truths = (pl.read_csv(files.truth) for files in (small, large))
        few_nodes, many_nodes = (pl.read_csv(files.network_nodes) for files in (small, large))
        known = pl.read_csv(small.meters)["meter_id"].implode()
        assert few_truths.filter(subject_type="meter").equals(
            many_truths.filter(subject_type="meter").filter(pl.col("subject_id").is_in(known))
        )
        assert few_nodes.equals(many_nodes.join(few_nodes.select("node_id"), on="node_id", how="semi"))
        few_flows, many_flows = (pl.read_csv(files.network_readings) for files in (small, large))
        filled = few_nodes.filter(node_type="transformer")["node_id"][:-1]
        assert len(filled) >= 2
        for node_id in filled:
            assert few_flows.filter(node_id=node_id).equals(many_flows.filter(node_id=node_id))
