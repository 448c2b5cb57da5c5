"""Which files are meant, what each is, and whether its content is new. Reads files, writes nothing."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Generic, TypeVar

from energy_iot.errors import InputFileError, UnknownFormatError
from energy_iot.ingestion.readers.batch import Batch, printable, printable_name
from energy_iot.ingestion.readers.containers import CHECK_PATH, KNOWN_SUFFIXES, Part, explain_broken, open_parts
from energy_iot.ingestion.readers.text import read_header, read_text, verify_readable
from energy_iot.ingestion.registry_format import FORMATS, RegistryLayout, recognise_registry
from energy_iot.ingestion.sources import FieldPlaces, Layout, SourceMapping, recognise

AnyLayout = TypeVar("AnyLayout", bound=FieldPlaces)


@dataclass(frozen=True)
class Fingerprint:
    """What tells that a file is the same, and unchanged since it was looked at."""

    sha256: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True)
class RecognisedFile(Generic[AnyLayout]):
    """A file and what it holds.

    Attributes:
        path: Where it is.
        fingerprint: Its content.
        tables: Its tables with their layouts, all of one mapping.
        warnings: What was ignored.
    """

    path: Path
    fingerprint: Fingerprint
    tables: tuple[tuple[Part, AnyLayout], ...]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name as it is stored: bytes that are no UTF-8 are escaped."""
        return printable_name(self.path)

    @property
    def mapping_name(self) -> str:
        """The source it was recognised as."""
        return self.tables[0][1].mapping_name

    @property
    def total_bytes(self) -> int:
        """What the progress of its batches adds up to."""
        return sum(part.total for part, _ in self.tables)

    def read(self) -> Iterator[tuple[Batch, AnyLayout]]:
        """All records in order.

        Raises:
            InputFileError: The file is damaged.
        """
        for part, layout in self.tables:
            for batch in _read_part(part, layout):
                yield batch, layout


class SourceFile(RecognisedFile[Layout]):
    """A file of readings."""


class RegistryFile(RecognisedFile[RegistryLayout]):
    """A file of the registry, of what flows through the network, of outages or inspections."""


def expand(files: tuple[Path, ...], pattern: str = "*") -> list[Path]:
    """The files meant: folders become their files of known kinds that fit `pattern`, in order of name; each file once.

    Raises:
        InputFileError: One does not exist, is no regular file, or a folder holds none.
    """
    found: list[Path] = []
    for given in files:
        path = given.expanduser()
        name = printable(os.fsencode(path).decode("utf-8", errors="backslashreplace"))
        with explain_broken(name):
            if path.is_dir():
                found += _files_in(path, pattern)
            elif path.is_file():
                found.append(path)
            elif path.exists():
                raise InputFileError(f"{name} is no regular file", fix="give a file or a folder of files")
            else:
                raise InputFileError(f"{name} does not exist", fix=CHECK_PATH)
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The files of known kinds in a folder whose names fit `pattern`, in order of name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in KNOWN_SUFFIXES
        and not path.name.startswith(".")
        and fnmatch(path.name, pattern)
        and path.is_file()
    ]


def _files_in(folder: Path, pattern: str) -> list[Path]:
    inside = files_in(folder, pattern)
    if not inside:
        raise InputFileError(
            f"{printable_name(folder)} holds no file that ends with {', '.join(KNOWN_SUFFIXES)}",
            fix="give the folder of the exports",
        )
    return inside


def fingerprint(path: Path) -> Fingerprint:
    """Hash a file's bytes.

    Raises:
        InputFileError: It cannot be read.
    """
    with explain_broken(printable_name(path)), path.open("rb") as file:
        state = os.fstat(file.fileno())
        return Fingerprint(hashlib.file_digest(file, "sha256").hexdigest(), state.st_size, state.st_mtime_ns)


def refuse_changed(path: Path, before: Fingerprint) -> None:
    """Make sure that a file is still what was hashed.

    Raises:
        InputFileError: It was written to meanwhile.
    """
    with explain_broken(printable_name(path)):
        state = path.stat()
    if (state.st_size, state.st_mtime_ns) != (before.size_bytes, before.changed_ns):
        raise InputFileError(
            f"{printable_name(path)}: it changed while it was read; nothing of it was loaded",
            fix="load it when it is complete",
        )


def inspect(path: Path, mappings: dict[str, SourceMapping], *, verify: bool) -> SourceFile | RegistryFile:
    """Hash a file and recognise its tables: as readings, or else as something of the registry.

    Args:
        path: The file.
        mappings: The formats that readings may have.
        verify: Read compressed content to its end, so that damage is found now and not while loading.

    Raises:
        InputFileError: It is empty, binary, damaged, or of no known format; says what was found and expected.
    """
    seen = fingerprint(path)
    parts, warnings = open_parts(path)
    readings: list[tuple[Part, Layout]] = []
    registry: list[tuple[Part, RegistryLayout]] = []
    refused: list[tuple[Part, str]] = []
    first_error: InputFileError | None = None
    for part in parts:
        try:
            found = _recognise(part, mappings)
        except InputFileError as error:
            first_error = first_error or error
            refused.append((part, str(error.problem).splitlines()[0]))
        else:
            if isinstance(found, Layout):
                readings.append((part, found))
            else:
                registry.append((part, found))
    if readings:  # an archive of readings may hold other things
        refused += [
            (part, f"it holds {layout.mapping_name}: give it as a file of its own") for part, layout in registry
        ]
        registry = []
    tables: list[tuple[Part, FieldPlaces]] = [*readings, *registry]
    if not tables:
        assert first_error is not None
        raise first_error
    if len({layout.mapping_name for _, layout in tables}) > 1:
        kinds = ", ".join(f"{part.label} is {layout.mapping_name}" for part, layout in tables)
        raise InputFileError(
            f"{printable_name(path)}: the archive mixes sources: {kinds}",
            fix="make one archive for each, or give the files",
        )
    if verify:
        for part, _ in tables:
            if part.packed_bytes is not None:
                verify_readable(part)
    warnings += [f"{part.label}: ignored, {why}" for part, why in refused]
    ignored = list(dict.fromkeys(column for _, layout in tables for column in layout.ignored))
    if ignored:
        warnings.append(
            f"{printable_name(path)}: columns that the source does not know are ignored: {', '.join(ignored)}"
        )
    if readings:
        return SourceFile(path, seen, tuple(readings), tuple(warnings))
    return RegistryFile(path, seen, tuple(registry), tuple(warnings))


def _recognise(part: Part, mappings: dict[str, SourceMapping]) -> Layout | RegistryLayout:
    header = _header(part)
    try:
        return recognise(header, mappings, part.label)
    except UnknownFormatError as error:
        found = recognise_registry(header, part.label)
        if found is not None:
            return found
        kinds = "\n  ".join(f"{known.content}: {','.join(known.recognised_by)}" for known in FORMATS.values())
        raise UnknownFormatError(
            f"{error.problem}\n  or, for what is no reading, of one of these:\n  {kinds}", fix=error.fix
        ) from error


def _header(part: Part) -> bytes | list[str]:
    if part.kind == "parquet":
        from energy_iot.ingestion.readers.parquet import read_column_names  # pyarrow costs memory that text never needs

        return read_column_names(part)
    return read_header(part)


def _read_part(part: Part, layout: FieldPlaces) -> Iterator[Batch]:
    if part.kind == "parquet":
        from energy_iot.ingestion.readers.parquet import read_parquet

        return read_parquet(part, layout)
    return read_text(part, layout)
