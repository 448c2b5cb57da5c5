"""What readers may ask, judged on the statement as ClickHouse writes it after parsing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.serving.reader_rights import (
    HELD_ANSWER_LIMITS,
    READER_LIMITS,
    READING_STATEMENTS,
    ReaderRefusedError,
    check_reading,
    check_setting,
)

LIMITS = READER_LIMITS | HELD_ANSWER_LIMITS
FORBIDDEN = frozenset({"url", "s3", "file"})
STRINGS = st.text().map(lambda text: "'" + re.sub(r"([\\'])", r"\\\1", text) + "'")
NAMES = st.text(min_size=1).map(lambda text: "`" + re.sub(r"([\\`])", r"\\\1", text) + "`")


def refusal(canonical: str) -> str | None:
    try:
        check_reading(canonical, FORBIDDEN)
    except ReaderRefusedError as error:
        return str(error)
    return None


@given(STRINGS)
def test_what_stands_in_a_string_is_allowed(string: str) -> None:
    assert refusal(f"SELECT {string}, sum(x) FROM t WHERE y = {string}") is None


@given(STRINGS, NAMES)
def test_nothing_hides_behind_strings_and_names(string: str, name: str) -> None:
    """Whatever they hold, they end where ClickHouse says that they end."""
    for forbidden in ("url('x')", "file(x)", "`url`('x')", "`FILE`", "URL\n('x')"):
        refused = refusal(f"SELECT {string}, {name} FROM t, {forbidden} WHERE x = {string}")
        assert refused is not None
        assert "ACCESS_DENIED" in refused


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    """Without an error of ours, and never allowed unless it begins as reading does."""
    if refusal(text) is None:
        assert re.match(rf"\s*({'|'.join(READING_STATEMENTS)})\b", text)


@pytest.mark.parametrize(
    "canonical",
    ["", "INSERT INTO t VALUES", "SELECT 1 INTO OUTFILE 'x'", "SELECT 1 PARALLEL WITH DROP TABLE x", "KILL QUERY",
     "SELECT * APPLY file FROM t", "SELECT `fi\\le`('x')", "SELECT aiGenerate('x')", "SELECT __getScalar('x')",
     "DESCRIBE TABLE {t:Identifier}", "EXISTS TABLE default.`/etc/passwd`", "SHOW COLUMNS FROM `a.csv` FROM default"],
)  # fmt: skip
def test_refused(canonical: str) -> None:
    assert refusal(canonical) is not None


@pytest.mark.parametrize(
    "canonical",
    ["SELECT url FROM t", "SELECT t.url, x AS s3 FROM t", "SELECT domain(url), `a/b.c` FROM t", "WITH 1 AS a SELECT a",
     "SELECT {p:String}", "EXISTS TABLE t", "SHOW TABLES FROM db", "EXPLAIN SELECT 1", "SELECT OUTFIT FROM t"],
)  # fmt: skip
def test_allowed(canonical: str) -> None:
    assert refusal(canonical) is None


@given(st.sampled_from(sorted(LIMITS)), st.integers())
def test_limits_may_only_become_lower(name: str, value: int) -> None:
    if 0 < value <= LIMITS[name]:
        check_setting(name, str(value))
    else:
        with pytest.raises(ReaderRefusedError):
            check_setting(name, str(value))


@given(st.text())
def test_other_settings_are_refused(value: str) -> None:
    for name in ("readonly", "allow_ddl", "max_threads", "output_format", "xoutput_format_a", "output_format_a b"):
        with pytest.raises(ReaderRefusedError):
            check_setting(name, value)
