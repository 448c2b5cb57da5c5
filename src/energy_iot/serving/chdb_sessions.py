"""Statements run on chDB as ClickHouse's HTTP interface runs them: each with its database, settings and parameters."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import chdb

from energy_iot.serving.reader_rights import (
    READER_LIMITS,
    check_reading,
    check_setting,
    load_forbidden_functions,
)

INSERT_DATA: Final = re.compile(
    rb"\s*(INSERT\s+INTO\s(?:(?!\bSELECT\b|\bVALUES\b)[^;])*?)\s+FORMAT\s+(\w+)[ \t]*(?:\r?\n|\s|$)", re.IGNORECASE
)
FORMAT_CLAUSE: Final = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)
HAS_ANSWER: Final = re.compile(
    rb"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(SELECT|WITH|FROM|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|CHECK|KILL)\b",
    re.IGNORECASE | re.DOTALL,
)
NO_SESSION: Final = "Code: 372. DB::Exception: Session {} not found. (SESSION_NOT_FOUND)"
LOCKED_SESSION: Final = "Code: 373. DB::Exception: Session {} is locked by a concurrent client. (SESSION_IS_LOCKED)"
MOST_SESSIONS: Final = 256

_open: Callable[[str], Any] = chdb.connect  # it has no types of its own


class StatementError(Exception):
    """The text is ClickHouse's own, code and all."""


@dataclass(frozen=True)
class Statement:
    """One request.

    Attributes:
        text: The statement, for INSERT ... FORMAT with its data.
        database: Where names without a database are looked up; None for the session's, or the usual one.
        default_format: Of the answer, where the statement names none.
        settings: For this statement only.
        parameters: Values of {name:Type}.
        session_id: Names a session that keeps temporary tables and SET; None for none.
        session_seconds: How long that session is kept when idle.
        must_exist: Whether it is an error when the session does not exist yet.
    """

    text: bytes
    database: str | None = None
    default_format: str = "TabSeparated"
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    session_id: str | None = None
    session_seconds: int = 60
    must_exist: bool = False


@dataclass(frozen=True)
class Answer:
    """What a statement gave; `format` is None for statements that have no answer."""

    body: bytes
    format: str | None
    summary: dict[str, str]


@dataclass
class _Session:
    connection: Any
    seconds: int = 60
    lock: threading.Lock = field(default_factory=threading.Lock)
    last_used: float = field(default_factory=time.monotonic)


class ChdbSessions:
    """The engine on one folder, used by many threads: each statement or session has a connection of its own."""

    def __init__(self, folder: Path, database: str) -> None:
        """Open the folder, with a database for statements that name none.

        Raises:
            RuntimeError: Another process holds it, or it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = str(folder.resolve())
        self._database = database
        self._own = _open(self._folder)  # the engine lives as long as any connection
        self._own.query(f"create database if not exists {_identifier(database)}")
        self._own_lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._sessions_lock = threading.Lock()
        self._forbidden_functions = load_forbidden_functions(self._own)

    def close(self) -> None:
        """Let the folder go; statements must have ended."""
        for session in self._sessions.values():
            session.connection.close()
        self._sessions.clear()
        self._own.close()

    def execute(self, sql: str) -> bytes:
        """Run a statement of the front's own."""
        with self._own_lock:
            return bytes(self._own.query(sql, "TabSeparated").bytes() or b"")

    def cancel_all(self) -> None:
        """Ask all running statements to end."""
        self.execute("kill query where query_id != queryID() async")

    def write(self, statement: Statement) -> Answer:
        """Run a statement with all rights.

        Raises:
            StatementError: ClickHouse refuses it.
        """
        with self._connection(statement) as connection, _engine_errors():
            _use(connection, statement.database)
            if statement.session_id is None:
                _set(connection, statement.settings)
                return _run(connection, statement)
            before = _read_settings(connection, statement.settings)
            try:
                _set(connection, statement.settings)
                return _run(connection, statement)
            finally:
                for name, value in before.items():
                    connection.query(f"set {name} = {value}")

    def read(self, statement: Statement) -> Answer:
        """Run a statement with a reader's rights; a reader's session keeps nothing, so there is none.

        Raises:
            ReaderRefusedError: It is no plain reading.
            StatementError: ClickHouse refuses it.
        """
        for name, value in statement.settings.items():
            check_setting(name, value)
        connection = self._connect()
        try:
            with _engine_errors():
                text = statement.text.decode("utf-8", "strict")
                canonical = connection.query(f"select formatQuerySingleLine({_literal(text)})", "TabSeparatedRaw")
                check_reading(canonical.bytes().decode(), self._forbidden_functions)
                _use(connection, statement.database)
                limits = {name: str(limit) for name, limit in READER_LIMITS.items()}
                _set(connection, {**limits, **statement.settings, "readonly": "1"})
                return _run(connection, statement)
        finally:
            connection.close()

    def _connect(self) -> Any:
        connection = _open(self._folder)
        _use(connection, self._database)
        return connection

    @contextmanager
    def _connection(self, statement: Statement) -> Iterator[Any]:
        if statement.session_id is None:
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()
            return
        session = self._session(statement, statement.session_id)
        try:
            yield session.connection
        finally:
            session.last_used = time.monotonic()
            session.lock.release()

    def _session(self, statement: Statement, session_id: str) -> _Session:
        """The session, locked; those that were idle for too long are closed first."""
        with self._sessions_lock:
            now = time.monotonic()
            idle = sorted(
                (name for name, session in self._sessions.items() if not session.lock.locked()),
                key=lambda name: self._sessions[name].last_used,
            )
            surplus = len(self._sessions) - MOST_SESSIONS
            for number, name in enumerate(idle):
                session = self._sessions[name]
                if now - session.last_used > session.seconds or number <= surplus:
                    self._sessions.pop(name).connection.close()
            if session_id not in self._sessions:
                if statement.must_exist:
                    raise StatementError(NO_SESSION.format(session_id))
                self._sessions[session_id] = _Session(self._connect())
            session = self._sessions[session_id]
            if not session.lock.acquire(blocking=False):
                raise StatementError(LOCKED_SESSION.format(session_id))
            session.seconds = statement.session_seconds
            return session


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise StatementError(f"Code: 62. DB::Exception: the statement is not UTF-8: {error}. (SYNTAX_ERROR)") from error
    except RuntimeError as error:
        raise StatementError(str(error)) from error


def _run(connection: Any, statement: Statement) -> Answer:
    insert = INSERT_DATA.match(statement.text)
    if insert:
        with connection.send_insert(insert[1].decode(), insert[2].decode()) as inserter:
            inserter.append(memoryview(statement.text)[insert.end() :].tobytes())
            written = inserter.finish()
        return Answer(
            b"", None, {"written_rows": str(written.rows_written), "written_bytes": str(written.bytes_written)}
        )
    text = statement.text.decode()
    clause = FORMAT_CLAUSE.search(text)
    answer_format = clause[1] if clause else statement.default_format
    answer = connection.query(text, answer_format, params=dict(statement.parameters))
    body = answer.bytes() or b""
    if not HAS_ANSWER.match(statement.text):
        answer_format = None
    elif answer_format == "Native" and not body:
        body = _empty_native_block(connection, text[: clause.start()] if clause else text, statement.parameters)
    return Answer(body, answer_format, {"read_rows": str(answer.rows_read()), "read_bytes": str(answer.bytes_read())})


def _empty_native_block(connection: Any, query: str, parameters: Mapping[str, str]) -> bytes:
    """Names and types of an answer without rows, which chDB leaves out and a server sends."""
    try:
        described = connection.query(
            f"describe table ({query.strip().rstrip(';')})", "JSONCompactEachRow", params=dict(parameters)
        )
    except RuntimeError:
        return b""  # SHOW and the like have no description
    columns = [json.loads(line)[:2] for line in described.bytes().splitlines()]
    block = bytearray(_varint(len(columns)) + _varint(0))
    for text in (text.encode() for column in columns for text in column):
        block += _varint(len(text)) + text
    return bytes(block)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _use(connection: Any, database: str | None) -> None:
    if database:
        connection.query(f"use {_identifier(database)}")


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    if settings:
        assignments = (f"{_setting_name(name)} = {_literal(value)}" for name, value in settings.items())
        connection.query(f"set {', '.join(assignments)}")


def _read_settings(connection: Any, settings: Mapping[str, str]) -> dict[str, str]:
    """Values as SQL, to set them back."""
    if not settings:
        return {}
    names = ", ".join(_literal(name) for name in settings)
    answer = connection.query(
        f"select name, value, changed from system.settings where name in ({names})", "JSONCompactEachRow"
    )
    rows = (json.loads(line) for line in answer.bytes().splitlines())
    return {name: _literal(value) if changed else "DEFAULT" for name, value, changed in rows}


def _setting_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise StatementError(f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
    return name


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _identifier(text: str) -> str:
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"
