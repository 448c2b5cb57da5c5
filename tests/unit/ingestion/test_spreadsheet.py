"""Texts of unknown origin in a CSV for spreadsheets: no formula, and no loss."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.ingestion.spreadsheet import guard_formulas, remove_guards

DANGEROUS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
TEXTS = st.text(st.sampled_from("'\",;|. m1" + DANGEROUS) | st.characters(), max_size=30)


@given(text=TEXTS)
def test_guards_come_off_without_loss(text: str) -> None:
    assert remove_guards(guard_formulas(text)) == text


@given(text=TEXTS)
def test_no_field_begins_like_a_formula_whatever_separates_fields(text: str) -> None:
    for field in re.split(r"[,;|\"\t\r\n]", guard_formulas(text)):
        start = field.lstrip(" ")[:1]
        is_number = re.fullmatch(r" *[+-][0-9]+([.,][0-9]+)?", field)
        assert start not in tuple("=+-@\uff1d\uff0b\uff0d\uff20") or is_number, field


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|'' /C calc'!A0"),
        ("m1,2024-01-01,=1+1", "m1,2024-01-01,'=1+1"),
        ('m1;"=HYPERLINK(""x"")"', 'm1;"\'=HYPERLINK(""x"")"'),
        ("-0.5,+7,-1,5", "-0.5,+7,-1,5"),
        ("-2+3,m", "'-2+3,m"),
        ("  @SUM(A1)", "'  @SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("m1,2024-01-01 00:00,0.25", "m1,2024-01-01 00:00,0.25"),
    ],
)
def test_examples(text: str, guarded: str) -> None:
    assert guard_formulas(text) == guarded
    assert remove_guards(guarded) == text


def test_what_a_person_types_without_guards_stays() -> None:
    assert remove_guards("=1+1,m's,5'") == "=1+1,m's,5'"
