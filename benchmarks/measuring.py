"""Running energy-iot in a process of its own, and measuring it."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

PER_MB = 1024**2 if sys.platform == "darwin" else 1024  # of ru_maxrss: Linux counts kB, macOS bytes
SAMPLE_SECONDS = 0.25


def run_command(home: Path, *arguments: object) -> dict[str, float]:
    """Run energy-iot: wall-clock seconds, peak memory of its process and of its PostgreSQL in MB.

    PostgreSQL's is the memory of its processes that they do not share, sampled four times a second.
    """
    start = monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "energy_iot", "--home", str(home), "--quiet", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
    )
    server = _ServerMemory(home)
    _, status, usage = os.wait4(process.pid, 0)
    server_peak = server.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"energy-iot {arguments[0]} ended with exit code {process.returncode}")
    return {
        "seconds": round(monotonic() - start, 3),
        "peak_memory_mb": round(usage.ru_maxrss / PER_MB),
        "postgres_peak_memory_mb": round(server_peak / 1024**2),
    }


class _ServerMemory:
    """Samples the private memory of the embedded server's processes in a thread."""

    def __init__(self, home: Path) -> None:
        self._pid_file = home / "postgres" / "postmaster.pid"
        self._ended = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The highest sum seen, bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            try:
                postmaster = psutil.Process(int(self._pid_file.read_text().split()[0]))
                private = sum(one.memory_full_info().uss for one in [postmaster, *postmaster.children()])
            except (OSError, IndexError, ValueError, psutil.Error):
                continue  # not up, or a backend that ended meanwhile
            self._peak = max(self._peak, private)


def read_status(home: Path) -> dict[str, Any]:
    """What `energy-iot status` says: the newest run's steps, and the rows stored."""
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", str(home), "status", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


def step_seconds(status: dict[str, Any]) -> float:
    """Seconds of all steps of the newest run: without Python's start and the server's."""
    return float(sum(step["seconds"] or 0 for step in status["steps"]))
