"""A real Prometheus, Alertmanager and exporters for tests, and what they say."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from energy_iot.serving.monitoring import PROGRAMS, read_address
from monitoring.grafana.queries import Sources
from tests.live_server import LiveServer, serving

MISSING = [program.package for program in PROGRAMS.values() if program.find() is None]
NOT_INSTALLED = f"not installed: {' '.join(MISSING)}"
INTERVAL_SECONDS = 2


@dataclass(frozen=True)
class LiveMonitoring(LiveServer):
    """Monitoring that runs."""

    def api(self, path: str, **parameters: Any) -> Any:
        """What Prometheus answers."""
        url = read_address(self.settings).url("prometheus")
        return httpx.get(f"{url}/api/v1/{path}", params=parameters, timeout=30).raise_for_status().json()["data"]

    def value(self, query: str) -> float | None:
        """The one value of a query now; None without one."""
        found = self.api("query", query=query)["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    @property
    def sources(self) -> Sources:
        """What Grafana would ask."""
        address = read_address(self.settings)
        assert address.database is not None
        return Sources(address.url("prometheus"), address.database, address.interval_seconds)

    def alerts(self, state: str = "firing") -> dict[str, dict[str, Any]]:
        """Alerts by name, as Prometheus has them."""
        return {
            alert["labels"]["alertname"]: alert for alert in self.api("alerts")["alerts"] if alert["state"] == state
        }


@contextmanager
def live_monitoring(home: Path, **variables: str) -> Iterator[LiveMonitoring]:
    """Start it on free ports, with short intervals."""
    ports = {f"ENERGY_IOT_{name}_PORT": "0" for name in ("METRICS", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")}
    with serving(home, "monitoring", os.environ | ports | variables, ("--interval", INTERVAL_SECONDS)) as served:
        yield LiveMonitoring(home, *served)
