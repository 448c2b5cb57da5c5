"""Open what a file is, by its first bytes: plain text, gzip, zip or parquet; never unpacked to disk."""

import gzip
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, Literal, cast

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers.batch import printable, printable_name

KNOWN_SUFFIXES: Final = (".csv", ".txt", ".gz", ".zip", ".parquet")
TEXT_SUFFIXES: Final = (".csv", ".txt")
ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_MAGIC: Final = b"\x1f\x8b"
PARQUET_MAGIC: Final = b"PAR1"
OLD_EXCEL_MAGIC: Final = b"\xd0\xcf\x11\xe0"
# what the standard library raises on altered bytes, according to where they are
BROKEN: Final = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, struct.error, ValueError, RuntimeError,
    OverflowError, LookupError, MemoryError,
)  # fmt: skip
# a text packs to a tenth; to a thousandth only if it says the same over and over
MOST_EXPANSION: Final = 500
SMALL_BYTES: Final = 256 * 2**20  # not worth a refusal
SHOWN_NAMES: Final = 5
CHECK_PATH: Final = "check the path; a folder loads all its files"
SAVE_AS_CSV: Final = "save the sheet as CSV and give that file"


@dataclass(frozen=True)
class Part:
    """One table of a file.

    Attributes:
        label: Name for people and rejects: the file, or archive/member.
        kind: How it is read.
        total: Bytes that `Batch.progress` adds up to.
        packed_bytes: What it takes in an archive, where only reading it to the end shows that it is whole; else None.
        open: Opens its bytes.
        position: Of an open part's stream: bytes of the total consumed so far.
    """

    label: str
    kind: Literal["text", "parquet"]
    total: int
    packed_bytes: int | None
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    position: Callable[[IO[bytes]], int]

    def blocks(self, size: int) -> Iterator[tuple[bytes, int]]:
        """The bytes in blocks, each with the position after it.

        Raises:
            InputFileError: The bytes are damaged, end too early, or are a trap that fills memory, disk and time.
        """
        read = 0
        with explain_broken(self.label), self.open() as stream:
            while block := stream.read(size):
                read += len(block)
                if self.packed_bytes is not None and read > max(SMALL_BYTES, MOST_EXPANSION * self.packed_bytes):
                    raise InputFileError(
                        f"{self.label}: it unpacks to more than {MOST_EXPANSION} times its size, as no readings do",
                        fix="look what it holds; if these are readings, unpack it and give the files",
                    )
                yield block, self.position(stream)


@contextmanager
def explain_broken(name: str) -> Iterator[None]:
    """Turn what reading altered, cut or unreadable bytes raises into an error for a person.

    Raises:
        InputFileError: Instead of it.
    """
    try:
        yield
    except InputFileError:
        raise
    except FileNotFoundError as error:
        raise InputFileError(f"{name} does not exist", fix=CHECK_PATH) from error
    except PermissionError as error:
        raise InputFileError(f"{name}: not allowed to read it", fix="give this user read permission") from error
    except BROKEN as error:
        raise InputFileError(
            f"{name}: it is truncated or damaged: {error or type(error).__name__}",
            fix="fetch or copy the file again; nothing of it was loaded",
        ) from error


def open_parts(path: Path) -> tuple[list[Part], list[str]]:
    """The tables that a file may hold: one, or for a zip each of its .csv and .txt members, and what else is in it.

    Raises:
        InputFileError: The file is empty, a workbook, a damaged or encrypted archive, or holds no table.
    """
    name = printable_name(path)
    with explain_broken(name):
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(4)
    if not magic:
        raise InputFileError(f"{name}: the file is empty", fix="give a file with a header line and readings")
    if magic in ZIP_MAGIC:
        return _zip_members(path)
    if magic == OLD_EXCEL_MAGIC:
        raise InputFileError(f"{name}: it is an Excel workbook, not a text table", fix=SAVE_AS_CSV)
    kind: Literal["text", "parquet"] = "parquet" if magic == PARQUET_MAGIC else "text"
    if magic.startswith(GZIP_MAGIC):
        return [Part(name, kind, size, size, lambda: _open_gzip(path), _gzip_position)], []
    return [Part(name, kind, size, None, lambda: path.open("rb"), lambda stream: stream.tell())], []


@contextmanager
def _open_gzip(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as stream:
        yield cast("IO[bytes]", stream)


def _gzip_position(stream: IO[bytes]) -> int:
    raw = cast("IO[bytes]", cast("gzip.GzipFile", stream).fileobj)
    return raw.tell()


def _zip_members(path: Path) -> tuple[list[Part], list[str]]:
    name = printable_name(path)
    with explain_broken(name), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.filename == "[Content_Types].xml" for info in members):
        raise InputFileError(f"{name}: it is an Office document, not a text table", fix=SAVE_AS_CSV)
    # macOS adds a __MACOSX/._name for each member
    members = [info for info in members if not PurePosixPath(info.filename).name.startswith(".")]
    tables = [info for info in members if PurePosixPath(info.filename).suffix.lower() in TEXT_SUFFIXES]
    if not tables:
        inside = _named(members) or "nothing"
        raise InputFileError(
            f"{name}: the archive holds no .csv or .txt file, but {inside}",
            fix="give an archive of CSV files, or the files themselves",
        )
    if encrypted := [info.filename for info in tables if info.flag_bits & 1]:
        raise InputFileError(
            f"{name}: {printable(encrypted[0])} is encrypted",
            fix="unpack the archive with its password and give the files",
        )
    labels = _labels(name, tables, alone=len(members) == 1)
    others = [info for info in members if info not in tables]
    parts = [
        Part(
            label=label,
            kind="text",
            total=info.file_size,
            packed_bytes=info.compress_size,
            open=lambda info=info: _open_member(path, info),  # type: ignore[misc]  # mypy cannot infer the default
            position=lambda stream: stream.tell(),
        )
        for label, info in zip(labels, tables, strict=True)
    ]
    return parts, [f"{name}: ignored, neither .csv nor .txt: {_named(others)}"] if others else []


def _named(members: list[zipfile.ZipInfo]) -> str:
    more = f" and {len(members) - SHOWN_NAMES:,} more" if len(members) > SHOWN_NAMES else ""
    return ", ".join(printable(info.filename) for info in members[:SHOWN_NAMES]) + more


def _labels(name: str, tables: list[zipfile.ZipInfo], *, alone: bool) -> list[str]:
    """A name for each member; an archive may hold several of one name, whose lines must be told apart."""
    if alone:
        return [name]
    seen: Counter[str] = Counter()
    labels = []
    for info in tables:
        label = f"{name}/{printable(info.filename)}"
        seen[label] += 1
        labels.append(f"{label} ({seen[label]})" if seen[label] > 1 else label)
    return labels


@contextmanager
def _open_member(path: Path, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
        yield stream
