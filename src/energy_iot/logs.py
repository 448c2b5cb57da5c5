"""Logging as configs/logging.yml says: plain lines on the terminal, JSON lines in a file, no secret in either."""

import logging
import logging.config
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from datetime import date
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import yaml
from pydantic import SecretStr
from pythonjsonlogger.json import JsonFormatter

from energy_iot.errors import EnergyIoTError, UsageError
from energy_iot.settings import PROJECT_DIR, Settings

MASK: Final = "***"
PASSWORD_IN_URL: Final = re.compile(r"(?<=://)([^:/@\s]*):[^/@\s]+@")

log = logging.getLogger(__name__)

# A process runs one run at a time, and libraries log from threads of their own, which no context variable reaches.
_bound: dict[str, str] = {}
_secrets: tuple[str, ...] = ()


def configure_logging(settings: Settings, *, quiet: bool = False, verbose: bool = False) -> None:
    """Set up logging for this process from the file that `settings.logging_config` names.

    Args:
        settings: Name that file, the home folder of the log, and the secrets to mask.
        quiet: Only errors on the terminal.
        verbose: What is worth knowing on the terminal too, and tracebacks.

    Raises:
        UsageError: The file is not there, is no YAML, or is no configuration of logging; names file and line or key.
    """
    global _secrets  # formatters are made by logging itself, from names in a file
    path = PROJECT_DIR / settings.logging_config
    configuration = _read_configuration(path)
    _secrets = find_secrets(settings)
    configuration.setdefault("disable_existing_loggers", False)  # modules made theirs when they were imported
    unwritable = _place_files(configuration, settings.home)
    for handler in configuration["handlers"].values():
        if handler.get("class") == f"{__name__}.{TerminalHandler.__name__}" and (quiet or verbose):
            handler |= {"level": "INFO" if verbose else "ERROR", "tracebacks": verbose}
    try:
        logging.config.dictConfig(configuration)
    except (ValueError, TypeError, AttributeError, ImportError, KeyError) as error:
        raise _unusable(path, _reason(error)) from error
    for reason in unwritable:
        log.warning("no log file: %s", reason)


@contextmanager
def bind_run(run_id: str) -> Iterator[None]:
    """Have each line say which run it belongs to, while the block runs."""
    with _bind(run_id=run_id):
        yield


@contextmanager
def bind_step(name: str) -> Iterator[None]:
    """Have each line say which step it belongs to, while the block runs."""
    with _bind(step=name):
        yield


def failure(error: BaseException, **fields: Any) -> dict[str, Any]:
    """What a log call needs to tell of an error that the command line prints too: log.error("...", **failure(error)).

    An error of ours is told by its problem and its fix, an unexpected one with its traceback; in the file only.
    """
    extra = fields | {"on_terminal": False, "error": type(error).__name__}
    if isinstance(error, EnergyIoTError):
        return {"extra": extra | {"problem": error.problem, "fix": error.fix}}
    return {"extra": extra, "exc_info": error if isinstance(error, Exception) else None}


@contextmanager
def _bind(**fields: str) -> Iterator[None]:
    before = dict(_bound)
    _bound.update(fields)
    try:
        yield
    finally:
        _bound.clear()
        _bound.update(before)


# --- secrets ----------------------------------------------------------------------------------------------------------


def find_secrets(settings: Settings) -> tuple[str, ...]:
    """What must not be shown: each secret setting, the password in it, and both as a URL writes them; longest first."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and value.get_secret_value():
            text = value.get_secret_value()
            found |= {text, *_passwords_in(text)}
    written = {form for secret in found for form in (secret, quote(secret), quote(secret, safe=""))}
    return tuple(sorted(written, key=len, reverse=True))


def _passwords_in(address: str) -> set[str]:
    """The password of a URL or of a libpq connection string."""
    if "://" in address:
        try:
            password = urlsplit(address).password
        except ValueError:  # such as a broken IPv6 address; the whole is masked all the same
            password = None
        return {password, unquote(password)} if password else set()
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(address).get("password")
    except ProgrammingError:  # a key, or an address that nothing can be opened with
        return set()
    return {str(given)} if given else set()


def mask_secrets(text: str) -> str:
    """The text without the secrets of the settings, and without the password of any URL in it."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    return PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)


# --- what the configuration file names --------------------------------------------------------------------------------


class ReadableFormatter(logging.Formatter):
    """Lines for people, the level in small letters as the command line prints errors."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, secrets masked."""
        shown = copy(record)  # the next handler formats the record too
        shown.levelname = record.levelname.lower()
        return mask_secrets(super().format(shown))


class JsonLinesFormatter(JsonFormatter):
    """One JSON object a line: when (UTC, ISO 8601), how bad, what, in which run and step, and any further fields."""

    def __init__(self, fmt: list[str], *, rename_fields: dict[str, str] | None = None) -> None:
        super().__init__(fmt, rename_fields=rename_fields, timestamp=True)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """The fields in order, secrets masked, each fit for JSON."""
        ordered = {"timestamp": log_data.pop("timestamp"), **_bound, **log_data}
        ordered.pop("on_terminal", None)
        return {name: _plain(value) for name, value in ordered.items() if value is not None}


def _plain(value: object) -> object:
    """The value as JSON knows it, secrets masked before quotes in them are escaped."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return mask_secrets(value.isoformat() if isinstance(value, date) else str(value))  # a datetime is a date


class TerminalHandler(logging.Handler):
    """Lines on standard error, as that is at the moment: live bars put a writer there that prints above them.

    A record with `extra={"on_terminal": False}` is left out: somebody else tells it there.
    """

    def __init__(self, *, tracebacks: bool = False) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        if not getattr(record, "on_terminal", True):
            return
        if not self._tracebacks:
            record = copy(record)  # the file gets it whole
            record.exc_info = record.exc_text = record.stack_info = None
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class JsonLinesFile(RotatingFileHandler):
    """A file of bounded size, for its owner only: lines may quote readings.

    It never stops a command: when it cannot be written any more (a full disk), that is told once.
    """

    def __init__(self, filename: str, *, maxBytes: int, backupCount: int) -> None:  # noqa: N803 - logging's own names
        super().__init__(filename, maxBytes=maxBytes, backupCount=backupCount, encoding="utf-8", delay=True)
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, to the file of that name even when another process has rotated it."""
        if self._failed:
            return
        if self.stream is not None and _inode(self.baseFilename) != os.fstat(self.stream.fileno()).st_ino:
            self.stream.close()
            self.stream = None  # type: ignore[assignment]  # as RotatingFileHandler does: opened by the next line
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say once why there are no further lines."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        with suppress(OSError):  # it writes what is left, once more in vain
            self.close()
        log.warning("no further lines in %s: %s", self.baseFilename, error.strerror or error)

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_open_private)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _inode(path: str) -> int | None:
    try:
        return Path(path).stat().st_ino
    except FileNotFoundError:
        return None


# --- the configuration file -------------------------------------------------------------------------------------------


def _read_configuration(path: Path) -> dict[str, Any]:
    try:
        configuration = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _unusable(path, f"{where}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(configuration, dict):
        raise _unusable(path, "it holds no keys")
    handlers = configuration.get("handlers")
    if not isinstance(handlers, dict) or not all(isinstance(handler, dict) for handler in handlers.values()):
        raise _unusable(path, "handlers: needs a name and settings for each")
    return configuration


def _place_files(configuration: Mapping[str, Any], home: Path) -> list[str]:
    """Put relative file names below home; a file that cannot be written is left out, and why is returned."""
    problems = []
    for name, handler in configuration["handlers"].items():
        if "filename" not in handler:
            continue
        path = home / str(handler["filename"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(_open_private(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
            configuration["handlers"][name] = {"class": "logging.NullHandler"}
        else:
            handler["filename"] = str(path)
    return problems


def _unusable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} does not configure logging: {reason}",
        fix="correct it there, or name another file with the setting logging_config",
    )


def _reason(error: BaseException) -> str:
    """What logging says, and what it says that was about."""
    reasons = [str(error)]
    cause = error.__cause__ or error.__context__
    while cause is not None:
        reasons.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    return ": ".join(dict.fromkeys(reasons))
