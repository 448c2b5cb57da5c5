"""Record a real `make demo` as docs/images/demo.svg: `make demo-recording` (needs Node.js; takes as long as the demo).

What is shown is what the terminal showed, played faster. The run is in a fresh clone of what is committed, with the
environment of this checkout.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from docs.tools.markdown_files import PROJECT_DIR

PICTURE: Final = PROJECT_DIR / "docs/images/demo.svg"
RECORDER: Final = "asciinema==2.4.0"  # PyPI; version 3 is no Python package
RENDERER: Final = "svg-term-cli@2.1.1"  # npm
COLUMNS, ROWS = 100, 50
PLAYED_SECONDS: Final = 12.0
FRAME_SECONDS: Final = 0.4
LAST_FRAME_SECONDS: Final = 6.0


def record(checkout: Path, tools: Path) -> str:
    """Run the demo in a terminal in an empty folder; returns what came out of it and when, as asciicast v2."""
    recording = tools / "demo.cast"
    subprocess.run(["git", "clone", "--quiet", "--shared", PROJECT_DIR, checkout], check=True)
    (checkout / ".venv").symlink_to(PROJECT_DIR / ".venv")
    for name in ("requirements/pipeline.txt", "pyproject.toml"):
        os.utime(checkout / name, (0, 0))  # what they ask for is installed
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, RECORDER], check=True)
    subprocess.run(
        [sys.executable, "-m", "asciinema", "rec", "--quiet", "--cols", str(COLUMNS), "--rows", str(ROWS),
         "--command", "sh -xc 'make demo'", recording],
        cwd=checkout, check=True, env={**os.environ, "PYTHONPATH": str(tools), "PS4": "$ ", "TERM": "xterm-256color"},
    )  # fmt: skip
    return recording.read_text(encoding="utf-8")


def shorten(recording: str) -> str:
    """The same output in the same order within `PLAYED_SECONDS`, a frame at a time; its end stays for a while."""
    header, *events = map(json.loads, recording.splitlines())
    frames: dict[int, str] = {}
    for seconds, kind, text in events:
        if kind == "o":
            frame = int(seconds / events[-1][0] * PLAYED_SECONDS / FRAME_SECONDS)
            frames[frame] = frames.get(frame, "") + text
    played = [(frame * FRAME_SECONDS, "o", text) for frame, text in frames.items()]
    played.append((played[-1][0] + LAST_FRAME_SECONDS, "o", ""))
    return "\n".join(json.dumps(line) for line in [header, *played]) + "\n"


def render(recording: str, picture: Path) -> None:
    """Draw the recording as an animated SVG."""
    subprocess.run(
        ["npx", "--yes", f"--package={RENDERER}", "svg-term", "--window", "--out", picture],
        input=recording, text=True, check=True,
    )  # fmt: skip


def main() -> None:
    """Record, shorten, render."""
    checkout = Path(tempfile.gettempdir(), "energy-iot-pipeline")  # it is in the picture
    with tempfile.TemporaryDirectory() as tools:
        try:
            recording = record(checkout, Path(tools))
        finally:
            shutil.rmtree(checkout, ignore_errors=True)
    render(shorten(recording), PICTURE)
    print(f"{PICTURE.relative_to(PROJECT_DIR)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
