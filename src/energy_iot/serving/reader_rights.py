"""What a reader may ask of chDB, which knows neither users nor grants.

chDB's `readonly = 1` refuses writing, changing settings and most table functions. It leaves open: the function file(),
DESCRIBE of a table function (which opens the file or address), SELECT ... INTO OUTFILE, KILL QUERY, Python objects, and
a second statement after a semicolon. These are refused here, on the statement as ClickHouse itself writes it after
parsing: comments, odd quotes and white space are gone, and a second statement is an error.
"""

import re
from typing import Any, Final

READING_STATEMENTS: Final = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "EXISTS", "EXPLAIN"})
# Table functions that make rows by themselves or read our own tables; all others reach files, addresses or programs.
HARMLESS_TABLE_FUNCTIONS: Final = frozenset(
    {"format", "generaterandom", "generateseries", "generate_series", "merge", "null", "numbers", "numbers_mt",
     "primes", "values", "view", "zeros", "zeros_mt"}
)  # fmt: skip
FORBIDDEN_FUNCTIONS: Final = frozenset(
    {"file", "addresstoline", "addresstolinewithinlines", "addresstosymbol", "catboostevaluate", "eval", "logtrace",
     "sleep", "sleepeachrow"}
)  # fmt: skip
FORBIDDEN_PREFIXES: Final = ("ai", "__")  # functions that call a language model over the network; internal ones
FORBIDDEN_KEYWORDS: Final = frozenset({"OUTFILE", "PARALLEL"})

# The canonical text has strings in '', names in `` and bare words; a backslash escapes in both kinds of quotes.
TOKEN: Final = re.compile(
    r"(?P<string>'(?:[^'\\]|\\.)*')|(?P<quoted>`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\")|(?P<word>[^\W\d]\w*)|(?P<other>[^\s])|\s+",
    re.DOTALL,
)
CLIENT_DEFAULTS: Final = re.compile(r"output_format_\w+|date_time_output_format|join_use_nulls|enable_http_compression")

# For each of a reader's statements; a request may ask for less.
READER_LIMITS: Final = {
    "max_execution_time": 60,
    "max_memory_usage": 4 * 1024**3,
}
# Further ones for answers in formats that cannot be streamed: they are held in memory.
HELD_ANSWER_LIMITS: Final = {
    "max_result_rows": 1_000_000,
    "max_result_bytes": 512 * 1024**2,
}


class ReaderRefusedError(Exception):
    """A reader asked for something else than reading the tables; the text is ClickHouse's, code 497 and all."""

    def __init__(self, what: str) -> None:
        super().__init__(f"Code: 497. DB::Exception: readers may not use {what}. (ACCESS_DENIED)")


def load_forbidden_functions(connection: Any) -> frozenset[str]:
    """Names, in lower case, of functions that no statement of a reader may have."""
    answer = connection.query("select lower(name) from system.table_functions", "TabSeparated").bytes()
    return (frozenset(answer.decode().split()) - HARMLESS_TABLE_FUNCTIONS) | FORBIDDEN_FUNCTIONS


def check_reading(canonical: str, forbidden_functions: frozenset[str]) -> None:
    """Refuse what is no plain reading of tables.

    Args:
        canonical: The statement as formatQuerySingleLine gives it.
        forbidden_functions: From `load_forbidden_functions`.

    Raises:
        ReaderRefusedError: It is another kind of statement, or uses what reaches beyond the tables.
    """
    tokens = [match for match in TOKEN.finditer(canonical) if match.lastgroup]
    statement = tokens[0].group() if tokens else ""
    if statement not in READING_STATEMENTS:
        raise ReaderRefusedError(f"the statement {statement or 'that is empty'}")
    looks_up = statement in {"SHOW", "DESCRIBE", "EXISTS"}
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.lastgroup == "word" and token.group() in FORBIDDEN_KEYWORDS:
            raise ReaderRefusedError(f"the keyword {token.group()}")
        name = _name(token).lower()
        called = following is not None and following.group() == "("
        # file can be called without brackets: SELECT * APPLY file
        if name in FORBIDDEN_FUNCTIONS or (called and _is_forbidden(name, forbidden_functions)):
            raise ReaderRefusedError(f"the function {_name(token)}")
        if looks_up and ((token.lastgroup == "quoted" and re.search(r"[./]", name)) or token.group() == "{"):
            raise ReaderRefusedError("the name of a file")


def check_setting(name: str, value: str) -> None:
    """Refuse a request's setting that is neither of the answer's form nor a lower limit.

    Raises:
        ReaderRefusedError: It is.
    """
    if CLIENT_DEFAULTS.fullmatch(name):
        return
    limit = (READER_LIMITS | HELD_ANSWER_LIMITS).get(name)
    if limit is None or not re.fullmatch(r"\d+", value) or not 0 < int(value) <= limit:  # 0 means no limit
        raise ReaderRefusedError(f"the setting {name} = {value}")


def _name(token: re.Match[str]) -> str:
    text = token.group()
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if token.lastgroup == "quoted" else text


def _is_forbidden(name: str, forbidden_functions: frozenset[str]) -> bool:
    return name in forbidden_functions or name.startswith(FORBIDDEN_PREFIXES)
