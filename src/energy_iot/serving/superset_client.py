"""What is asked of a running Superset through its interface."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from energy_iot.errors import StorageError
from energy_iot.serving.superset_server import ADMIN, SupersetAddress

LONGEST_SECONDS: Final = 120
MOST: Final = 1_000


@contextmanager
def logged_in(address: SupersetAddress, user: str = ADMIN) -> Iterator[httpx.Client]:
    """A client of the interface with the rights of the user.

    Raises:
        StorageError: Superset does not answer, or refuses something.
    """
    try:
        with httpx.Client(base_url=f"{address.url}/api/v1", timeout=LONGEST_SECONDS) as client:
            login = {"username": user, "password": address.passwords[user], "provider": "db", "refresh": False}
            token = client.post("/security/login", json=login).raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            client.headers["X-CSRFToken"] = client.get("/security/csrf_token/").raise_for_status().json()["result"]
            client.headers["Referer"] = address.url
            yield client
    except httpx.HTTPError as error:
        raise StorageError(f"Superset: {error}", fix="see its log in the home folder, superset/superset.log") from error


def list_all(client: httpx.Client, kind: str) -> list[dict[str, Any]]:
    """Up to 1,000 objects of a kind (`dashboard`, `chart`, `dataset` ...) that the user may see."""
    answer = client.get(f"/{kind}/", params={"q": f"(page:0,page_size:{MOST})"}).raise_for_status().json()
    found: list[dict[str, Any]] = sorted(answer["result"], key=lambda one: int(one["id"]))
    return found


def export_dashboards(client: httpx.Client, file: Path) -> int:
    """Write all dashboards with what they need; returns how many there are."""
    ids = [dashboard["id"] for dashboard in list_all(client, "dashboard")]
    answer = client.get("/dashboard/export/", params={"q": f"!({','.join(map(str, ids))})"}).raise_for_status()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(answer.content)
    return len(ids)
