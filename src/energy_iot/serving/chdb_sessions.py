"""Statements run on chDB as ClickHouse's HTTP interface runs them: each with its database, settings and parameters."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import chdb

from energy_iot.serving.reader_rights import (
    HELD_ANSWER_LIMITS,
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
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(SELECT|WITH|FROM|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|CHECK|KILL)\b",
    re.IGNORECASE | re.DOTALL,
)
# chDB writes each block of a stream as an answer of its own. In these formats the blocks, one after the other, are the
# whole answer; others begin or end it with something.
STREAMED_FORMATS: Final = frozenset({"Native", "RowBinary"})
STREAMED_TEXT_FORMATS: Final = frozenset({"CSV", "JSONEachRow", "TSV", "TabSeparated"})
STREAMED_STATEMENT: Final = re.compile(r"[\s(]*(SELECT|WITH|FROM)\b", re.IGNORECASE)
# What adds to an answer or leads it elsewhere, and comments, behind which FORMAT may not be what it seems to be.
NOT_STREAMED: Final = re.compile(r"\b(TOTALS|EXTREMES|OUTFILE)\b|array_of_rows|--|/\*|#", re.IGNORECASE)
CANCELLED: Final = "Code: 394. DB::Exception: Query was cancelled. (QUERY_WAS_CANCELLED)"
NO_SESSION: Final = "Code: 372. DB::Exception: Session {} not found. (SESSION_NOT_FOUND)"
LOCKED_SESSION: Final = "Code: 373. DB::Exception: Session {} is locked by a concurrent client. (SESSION_IS_LOCKED)"
MOST_SESSIONS: Final = 256
HELD_LIMITS: Final = {
    "max_result_bytes": str(2 * 1024**3)
}  # of answers held in memory, where nothing else is asked for

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
    """What a statement gives.

    Attributes:
        chunks: The answer, piece by piece as the engine makes it; a statement that fails late raises StatementError.
        format: None for statements that have no answer.
        summary: Figures for the client, complete when the chunks have ended.
    """

    chunks: Iterator[bytes]
    format: str | None
    summary: dict[str, str]


class RunningStatement:
    """A statement that other threads may end."""

    def __init__(self) -> None:
        """Make one that no thread runs yet."""
        self._lock = threading.Lock()
        self._thread_id: int | None = None
        self._cancelled = False

    def cancel(self, execute: Callable[[str], object]) -> None:
        """Ask it to end; again for one that had only begun.

        Args:
            execute: Runs SQL on another connection.
        """
        self._cancelled = True
        with self._lock:
            if self._thread_id is not None:
                execute(f"kill query where has(thread_ids, {self._thread_id}) async")  # chDB takes no query id from us

    def refuse_cancelled(self) -> None:
        """Raise StatementError when it was asked to end; chDB does not for all kinds of statements."""
        if self._cancelled:
            raise StatementError(CANCELLED)

    @contextmanager
    def in_this_thread(self) -> Iterator[None]:
        """Run it in the block; what this thread runs afterwards is another statement."""
        with self._lock:
            self.refuse_cancelled()
            self._thread_id = threading.get_native_id()
        try:
            yield
        finally:
            with self._lock:
                self._thread_id = None


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

    @contextmanager
    def write(self, statement: Statement, running: RunningStatement) -> Iterator[Answer]:
        """Run a statement with all rights; the answer can be read in the block.

        Raises:
            StatementError: ClickHouse refuses it.
        """
        with self._connection(statement) as connection:
            if insert := INSERT_DATA.match(statement.text):
                with _settings(connection, statement, statement.settings), running.in_this_thread():
                    yield _insert(connection, statement.text, insert, running)
                return
            with _engine_errors():
                form = _form(statement.text.decode(), statement)
            settings = {**(HELD_LIMITS if form.is_held else {}), **statement.settings}
            with (
                _settings(connection, statement, settings),
                running.in_this_thread(),
                _answer(connection, statement, form, running) as answer,
            ):
                yield answer

    @contextmanager
    def read(self, statement: Statement, running: RunningStatement) -> Iterator[Answer]:
        """Run a statement with a reader's rights; a reader's session keeps nothing, so there is none.

        Raises:
            ReaderRefusedError: It is no plain reading.
            StatementError: ClickHouse refuses it.
        """
        for name, value in statement.settings.items():
            check_setting(name, value)
        connection = self._connect(statement.database)
        try:
            with running.in_this_thread():
                with _engine_errors():
                    text = statement.text.decode()
                    formatted = connection.query(f"select formatQuerySingleLine({_literal(text)})", "TabSeparatedRaw")
                    canonical = formatted.bytes().decode().rstrip("\n")
                    check_reading(canonical, self._forbidden_functions)
                    form = _form(canonical, statement)
                    limits = READER_LIMITS | HELD_ANSWER_LIMITS if form.is_held else READER_LIMITS
                    shown = {name: str(limit) for name, limit in limits.items()}
                    _set(connection, {**shown, **statement.settings, "readonly": "1"})
                with _answer(connection, statement, form, running) as answer:
                    yield answer
        finally:
            connection.close()

    def _connect(self, database: str | None = None) -> Any:
        connection = _open(self._folder)
        try:
            _use(connection, database or self._database)
        except StatementError:
            connection.close()
            raise
        return connection

    @contextmanager
    def _connection(self, statement: Statement) -> Iterator[Any]:
        if statement.session_id is None:
            connection = self._connect(statement.database)
            try:
                yield connection
            finally:
                connection.close()
            return
        session = self._session(statement, statement.session_id)
        try:
            if statement.database:
                _use(session.connection, statement.database)
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
        raise StatementError(str(error).removeprefix("Streaming query failed: ")) from error


@contextmanager
def _settings(connection: Any, statement: Statement, settings: Mapping[str, str]) -> Iterator[None]:
    """Set them for the block; in a session they are set back afterwards."""
    with _engine_errors():
        before = _read_settings(connection, settings) if statement.session_id is not None else {}
    try:
        with _engine_errors():
            _set(connection, settings)
        yield
    finally:
        with _engine_errors():
            for name, value in before.items():
                connection.query(f"set {name} = {value}")


@dataclass(frozen=True)
class _Form:
    """How a statement answers.

    Attributes:
        query: It, without its FORMAT clause.
        format: Of the answer, or the one that is asked for where there is none.
        has_answer: Whether there is one.
        is_streamed: Whether it comes in chunks.
    """

    query: str
    format: str
    has_answer: bool
    is_streamed: bool

    @property
    def is_held(self) -> bool:
        """Whether all of it is in memory at once."""
        return self.has_answer and not self.is_streamed


def _form(text: str, statement: Statement) -> _Form:
    """Read it off the statement's text, for readers the canonical one."""
    clause = FORMAT_CLAUSE.search(text)
    query = text[: clause.start()] if clause else text
    answer_format = clause[1] if clause else statement.default_format
    # a session may have settings that the text formats depend on
    formats = STREAMED_FORMATS if statement.session_id else STREAMED_FORMATS | STREAMED_TEXT_FORMATS
    is_streamed = (
        answer_format in formats
        and STREAMED_STATEMENT.match(text) is not None
        and not any(NOT_STREAMED.search(part) for part in (text, *statement.settings))
    )
    return _Form(query, answer_format, HAS_ANSWER.match(text) is not None, is_streamed)


def _insert(connection: Any, text: bytes, insert: re.Match[bytes], running: RunningStatement) -> Answer:
    with _engine_errors(), connection.send_insert(insert[1].decode(), insert[2].decode()) as inserter:
        inserter.append(memoryview(text)[insert.end() :].tobytes())
        written = inserter.finish()
    running.refuse_cancelled()  # chDB tells of a cancelled one as of no rows
    summary = {"written_rows": str(written.rows_written), "written_bytes": str(written.bytes_written)}
    return Answer(iter(()), None, summary)


@contextmanager
def _answer(connection: Any, statement: Statement, form: _Form, running: RunningStatement) -> Iterator[Answer]:
    """Run the statement up to its first chunk; the rest is asked for in the block, or dropped at its end."""
    parameters = dict(statement.parameters)
    summary: dict[str, str] = {}
    if not form.is_streamed:
        with _engine_errors():
            whole = connection.query(statement.text.decode(), statement.default_format, params=parameters)
            body = whole.bytes() or (_without_rows(connection, form, parameters) if form.has_answer else b"")
        running.refuse_cancelled()
        _count(summary, whole)
        yield Answer(iter((body,)), form.format if form.has_answer else None, summary)
        return
    with _engine_errors():
        stream = connection.send_query(statement.text.decode(), statement.default_format, params=parameters)
    try:
        with _engine_errors():
            first = stream.fetch()
            body = _without_rows(connection, form, parameters) if first is None else first.bytes()
        _count(summary, first)
        yield Answer(chain((body,), _following(stream, summary, running)), form.format, summary)
    finally:
        stream.close()


def _following(stream: Any, summary: dict[str, str], running: RunningStatement) -> Iterator[bytes]:
    while True:
        running.refuse_cancelled()
        with _engine_errors():
            chunk = stream.fetch()
        if chunk is None:
            return
        _count(summary, chunk)
        yield chunk.bytes()


def _count(summary: dict[str, str], result: Any) -> None:
    """Add a chunk, or a whole answer, to the figures; None when there was no row."""
    for name, value in (("read_rows", result and result.rows_read()), ("read_bytes", result and result.bytes_read())):
        summary[name] = str(int(summary.get(name, "0")) + int(value or 0))


def _without_rows(connection: Any, form: _Form, parameters: Mapping[str, str]) -> bytes:
    """The answer that has no rows; chDB leaves out names and types, which a server sends in Native."""
    return _empty_native_block(connection, form.query, parameters) if form.format == "Native" else b""


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


def _use(connection: Any, database: str) -> None:
    with _engine_errors():
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
