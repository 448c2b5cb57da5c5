"""Content-Encoding of requests and answers, piece by piece."""

import io
import zlib
from typing import Final, Protocol

import pyarrow as pa

from energy_iot.serving.chdb_sessions import StatementError

ARROW_CODECS: Final = {"lz4": "lz4", "gzip": "gzip", "zstd": "zstd", "br": "brotli"}  # Content-Encoding: Arrow's name
ENCODINGS: Final = frozenset({*ARROW_CODECS, "deflate"})


class Compressor(Protocol):
    """Takes an answer piece by piece; what it gives belongs to one compressed stream."""

    def compress(self, data: bytes) -> bytes:
        """What is ready after these bytes, often nothing."""

    def flush(self) -> bytes:
        """The rest."""


def compressor(encoding: str | None) -> Compressor:
    """One for a Content-Encoding of ENCODINGS, or that changes nothing."""
    if encoding == "deflate":
        return zlib.compressobj(1)
    return _Plain() if encoding is None else _ArrowCompressor(encoding)


def decompressed(body: bytes, encoding: str, longest: int) -> bytes:
    """A body without its Content-Encoding.

    Raises:
        StatementError: It is not encoded so, such an encoding is unknown, or it unpacks to more than `longest` bytes.
    """
    try:
        if encoding in ARROW_CODECS:
            with pa.CompressedInputStream(pa.BufferReader(body), ARROW_CODECS[encoding]) as stream:
                unpacked = bytes(stream.read(longest + 1))
        elif encoding == "deflate":
            inflating = zlib.decompressobj()
            unpacked = inflating.decompress(body, longest + 1)
            if not inflating.eof and len(unpacked) <= longest:
                raise zlib.error("it ends too early")
        elif encoding == "identity":
            unpacked = body
        else:
            raise StatementError(f"Code: 48. DB::Exception: Content-Encoding {encoding} is unknown. (NOT_IMPLEMENTED)")
    except (OSError, zlib.error) as error:
        raise StatementError(
            f"Code: 354. DB::Exception: the body is not {encoding}: {error}. (ZLIB_INFLATE_FAILED)"
        ) from error
    if len(unpacked) > longest:
        raise StatementError(
            f"Code: 307. DB::Exception: the request unpacks to more than {longest} bytes. (TOO_MANY_BYTES)"
        )
    return unpacked


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _ArrowCompressor:
    def __init__(self, encoding: str) -> None:
        self._sink = _Sink()
        self._stream = pa.CompressedOutputStream(self._sink, ARROW_CODECS[encoding])

    def compress(self, data: bytes) -> bytes:
        self._stream.write(data)
        return self._sink.take()

    def flush(self) -> bytes:
        self._stream.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """Where pyarrow writes to."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # pyarrow gives bytes
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken
