"""What PostgreSQL and its drivers say, as an error for people; a retry may help, or a person must act first."""

import re
from typing import Final

from energy_iot.errors import StorageError, StoreUnavailableError

# Appendix A of PostgreSQL's manual: 08 connection; 57P0x shut down, crashed, starting; 57P05 and 25P03 idle too long;
# 53300 too many connections; 40001 and 40P01 rolled back because of another session
UNAVAILABLE: Final = re.compile(r"08|57P01|57P02|57P03|57P05|25P03|53300|40001|40P01")
CANNOT_CONNECT_NOW: Final = "57P03"
DISK_FULL: Final = "53100"
NO_SPACE: Final = re.compile(DISK_FULL)
NO_MEMORY: Final = re.compile(r"53200")
NOT_ADMITTED: Final = re.compile(r"28|3D000|57P04")
NO_RIGHT: Final = re.compile(r"42501")

# Errors of connecting, and of a lost connection, carry no code. libpq's own texts are English everywhere.
UNAVAILABLE_TEXT: Final = re.compile(
    r"connection refused|timeout expired|could not translate host name|failed to resolve host|no route to host"
    r"|network is unreachable|connection reset|broken pipe|server closed the connection|connection has been closed"
    r"|the connection is (closed|lost)|no connection to the server|connection socket closed"
    r"|could not (receive|send) data|SSL SYSCALL"
    r"|\.s\.PGSQL\.\d+\" failed: no such file|terminating connection|too many (clients|connections)"
    r"|remaining connection slots|the database system is|server conn crashed",
    re.IGNORECASE,
)
NO_SPACE_TEXT: Final = re.compile(r"no space left on device|could not (extend|write to) file", re.IGNORECASE)
NOT_ADMITTED_TEXT: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) \".*\" does not exist"
    r"|is not permitted to log in",
    re.IGNORECASE,
)
NO_RIGHT_TEXT: Final = re.compile(r"permission denied", re.IGNORECASE)
TLS_TEXT: Final = re.compile(r"certificate|SSL error|does not support SSL", re.IGNORECASE)
LONGEST_REASON: Final = 400


def storage_error(
    text: str, sqlstate: str | None, *, operational: bool, place: str, password: str | None
) -> StorageError | None:
    """The error of ours that a driver's error means; None for a faulty statement.

    Args:
        text: What the driver said.
        sqlstate: PostgreSQL's code for it, where the driver has one.
        operational: Whether the driver calls it a matter of the server's operation.
        place: Host, port and database.
        password: Never to be shown.
    """
    reason = _reason(text, sqlstate, password)
    for codes, words, what in ((NO_SPACE, NO_SPACE_TEXT, "space"), (NO_MEMORY, None, "memory")):
        if _means(text, sqlstate, codes, words):
            return StorageError(
                f"PostgreSQL at {place} ran out of {what}, and nothing of this step was written: {reason}",
                fix=f"free {what} on the server, then type the same command again; `energy-iot doctor` tells more",
            )
    told = f"PostgreSQL at {place}: {reason}"
    if _means(text, sqlstate, None, TLS_TEXT):
        return StorageError(told, fix="check sslmode, sslrootcert, sslcert and sslkey in ENERGY_IOT_POSTGRES_DSN")
    if _means(text, sqlstate, UNAVAILABLE, UNAVAILABLE_TEXT):
        return StoreUnavailableError(
            told,
            fix="check that it runs and can be reached, then type the same command again; or ask `energy-iot doctor`",
        )
    if _means(text, sqlstate, NOT_ADMITTED, NOT_ADMITTED_TEXT):
        return StorageError(told, fix="check user, password and database in ENERGY_IOT_POSTGRES_DSN")
    if _means(text, sqlstate, NO_RIGHT, NO_RIGHT_TEXT):
        return StorageError(told, fix="let an administrator give the right: energy-iot init-db --user USER")
    return StorageError(told, fix="see the server's log, and ask `energy-iot doctor`") if operational else None


def _means(text: str, sqlstate: str | None, codes: re.Pattern[str] | None, words: re.Pattern[str] | None) -> bool:
    if sqlstate is not None:
        return codes is not None and codes.match(sqlstate) is not None
    return words is not None and words.search(text) is not None


def _reason(text: str, sqlstate: str | None, password: str | None) -> str:
    """The server's own words on one line, without the drivers' prefixes."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip() and not line.startswith("\t")]
    if sqlstate is not None:
        del lines[1:]  # the statement and its place in it; without a code, each line is an address that failed
    reason = re.sub(r"^[A-Z_]+: (\[libpq\] )?", "", "; ".join(lines))
    return reason.replace(password or "\0", "***")[:LONGEST_REASON]
