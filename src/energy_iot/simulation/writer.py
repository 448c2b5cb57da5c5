"""Writing a fleet to disk: streamed, and visible under its names only when complete."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from energy_iot.errors import UsageError

READINGS_FILE: Final = "readings.csv"
ANOMALIES_FILE: Final = "anomalies.csv"
METERS_FILE: Final = "meters.csv"
NETWORK_NODES_FILE: Final = "network_nodes.csv"
NETWORK_READINGS_FILE: Final = "network_readings.csv"
OUTAGES_FILE: Final = "outages.csv"
TRUTH_FILE: Final = "truth.csv"
FILES: Final = (
    ANOMALIES_FILE,
    METERS_FILE,
    NETWORK_NODES_FILE,
    NETWORK_READINGS_FILE,
    OUTAGES_FILE,
    TRUTH_FILE,
    READINGS_FILE,  # the readings last: they say it is complete
)
PARTIAL_SUFFIX: Final = ".partial"


class FleetWriter:
    """Context manager: `write` parts of files; leaving without an error puts all in place, else nothing remains."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder, self._overwrite = folder, overwrite
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        """Make the folder and open the partial files.

        Raises:
            UsageError: A file is there already and may not be overwritten, or the folder cannot be written.
        """
        present = [str(self._folder / name) for name in FILES if (self._folder / name).exists()]
        if present and not self._overwrite:
            raise UsageError(
                f"{' and '.join(present)}: there already", fix="name another folder, or type --overwrite to replace"
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                self._files[name] = self._partial(name).open("wb")
        except OSError as error:
            self._discard()
            raise self._cannot_write(error) from error
        return self

    def write(self, parts: Mapping[str, bytes]) -> None:
        """Append to files by name; header lines are the caller's.

        Raises:
            UsageError: The disk is full.
        """
        try:
            for name, part in parts.items():
                self._files[name].write(part)
                self._files[name].flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put all files in place, or leave nothing after an error."""
        if error is not None:
            self._discard()
            return
        try:
            for file in self._files.values():
                file.close()
            for name in FILES:
                self._partial(name).replace(self._folder / name)
        except OSError as failure:
            self._discard()
            raise self._cannot_write(failure) from failure

    def _discard(self) -> None:
        for name, file in self._files.items():  # as many as could be opened
            with suppress(OSError):  # what is left in a buffer does not fit on a full disk
                file.close()
            self._partial(name).unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        return self._folder / (name + PARTIAL_SUFFIX)

    def _cannot_write(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self._folder}: cannot be written ({error.strerror or error})",
            fix="name a folder that you may write to, with room for 65 bytes a reading",
        )
