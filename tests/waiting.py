"""Wait for what nothing tells of: another process, another session."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(find: Callable[[], T | None], what: str, seconds: float = 180) -> T:
    """What `find` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {seconds:.0f} s")
