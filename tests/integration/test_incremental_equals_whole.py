"""The property that incremental work rests on: however readings arrive, the result is that of a full refresh."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.pipeline import ALL_STEPS, RunOptions, run_steps
from energy_iot.settings import Settings
from tests.conftest import new_database
from tests.random_fleet import Feed, random_feed
from tests.stored_tables import derived_tables, differences

# columns that follow from the scores: of a reading, of a day, of a meter
OF_SCORES = frozenset(
    {
        *("anomaly_score", "is_anomaly", "anomaly_type", "model_version", "anomaly_count"),
        *("strange_reading_share", "forest_rank", "suspicion_score", "suspicion_rank", "confidence"),
        *("reasons", "suspected_since", "lost_kwh", "lost_value", "suppressed_cause"),
    }
)
# without the gates: they change nothing, and cost seconds of rendering; tests/e2e runs them
STEPS = tuple(name for name in ALL_STEPS if not name.startswith("ge_"))


def check(server: dict[str, str], feed: Feed) -> None:
    """Load a feed file by file; compare with a full refresh, and with the same files loaded in one run."""
    with TemporaryDirectory() as folder, new_database(server) as dsn, new_database(server) as other_dsn:
        settings = Settings(home=Path(folder) / "home", postgres_dsn=dsn)
        paths = feed.write(Path(folder) / "feed")
        modes = [
            run_steps(settings, RunOptions(files=(path,)), STEPS).steps[2].report.details["mode"] for path in paths
        ]
        assert modes == ["whole"] + ["incremental"] * (len(paths) - 1)
        incremental = derived_tables(settings)
        run_steps(settings, RunOptions(full_refresh=True), STEPS)
        assert differences(incremental, derived_tables(settings)) == {}

        # the model has seen other readings there, and so has other scores, and suspects others
        at_once = Settings(home=Path(folder) / "other", postgres_dsn=other_dsn)
        run_steps(at_once, RunOptions(files=tuple(paths)), STEPS)
        assert differences(incremental, derived_tables(at_once), leave_out=OF_SCORES) == {}


@pytest.mark.heavy
def test_late_corrected_and_repeated_readings(postgres_server: dict[str, str]) -> None:
    check(postgres_server, random_feed(1, meters=12, days=75, files=3))


@pytest.mark.heavy
@hypothesis_settings(
    max_examples=6,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to make an example smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(
    seed=st.integers(0, 10**6),
    meters=st.integers(1, 12),
    days=st.sampled_from([1, 5, 16, 40, 75]),
    files=st.integers(2, 4),
)
def test_any_split_order_and_correction(
    postgres_server: dict[str, str], seed: int, meters: int, days: int, files: int
) -> None:
    check(postgres_server, random_feed(seed, meters=meters, days=days, files=files))


def test_the_feeds_hold_what_they_should_prove() -> None:
    feed = random_feed(1, meters=12, days=75, files=3)
    assert min(feed.late, feed.corrections, feed.duplicates) > 50
    lines = [line for part in feed.files for line in part]
    assert len(lines) > len(set(lines))
    assert any(line.split(",")[-3] == "" for line in lines)
