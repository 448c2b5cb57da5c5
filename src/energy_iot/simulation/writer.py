"""Writing a fleet to disk: streamed, and visible under its name only when complete."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import polars as pl

from energy_iot.errors import UsageError

READINGS_FILE: Final = "readings.csv"
ANOMALIES_FILE: Final = "anomalies.csv"
PARTIAL_SUFFIX: Final = ".partial"


class FleetWriter:
    """Context manager: `write` each block; leaving without an error puts the files in place, else nothing remains."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder, self._overwrite = folder, overwrite
        self._targets = folder / ANOMALIES_FILE, folder / READINGS_FILE  # the readings last: they say it is complete
        self._files: list[BinaryIO] = []
        self.reading_count = self.anomalous_reading_count = self.episode_count = 0

    def __enter__(self) -> Self:
        """Make the folder and open the partial files.

        Raises:
            UsageError: A file is there already and may not be overwritten, or the folder cannot be written.
        """
        present = [str(path) for path in self._targets if path.exists()]
        if present and not self._overwrite:
            raise UsageError(
                f"{' and '.join(present)}: there already", fix="name another folder, or type --overwrite to replace"
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._targets:
                self._files.append(_partial(path).open("wb"))
        except OSError as error:
            self._discard()
            raise self._cannot_write(error) from error
        return self

    def write(self, readings: pl.DataFrame, anomalies: pl.DataFrame) -> None:
        """Append one block; the first one brings the header.

        Raises:
            UsageError: The disk is full.
        """
        is_first = self._files[0].tell() == 0
        try:
            for frame, file in zip((anomalies, readings), self._files, strict=True):
                frame.write_csv(file, include_header=is_first, quote_style="never")
        except OSError as error:
            raise self._cannot_write(error) from error
        self.reading_count += len(readings)
        self.anomalous_reading_count += int(anomalies["readings"].sum())
        self.episode_count += len(anomalies)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put both files in place, or leave nothing after an error."""
        if error is not None:
            self._discard()
            return
        try:
            for file in self._files:
                file.close()
            for path in self._targets:
                _partial(path).replace(path)
        except OSError as failure:
            self._discard()
            raise self._cannot_write(failure) from failure

    def _discard(self) -> None:
        for file, path in zip(self._files, self._targets, strict=False):  # as many as could be opened
            with suppress(OSError):  # what is left in a buffer does not fit on a full disk
                file.close()
            _partial(path).unlink(missing_ok=True)

    def _cannot_write(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self._folder}: cannot be written ({error.strerror or error})",
            fix="name a folder that you may write to, with room for 60 bytes a reading",
        )


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL_SUFFIX)
