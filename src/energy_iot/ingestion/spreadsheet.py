"""Texts of unknown origin in a CSV that people open in a spreadsheet, and back without loss.

A spreadsheet runs a field that begins like a formula. The usual guard is a quote mark in front of it, which shows and
does no harm. Here it also stands within a text, where a field would begin if the spreadsheet splits at another
separator than ours, as those of many countries do; and in front of a quote mark, so that removing guards gives what was
there.
"""

import re
from typing import Final

FIELD_START: Final = r"(?:^|(?<=[,;|\t\r\n\"]))"
PLAIN_NUMBER: Final = r" *[+-]?[0-9]+(?:[.,][0-9]+)?(?=[,;|\t\"]|$)"
FORMULA_START: Final = r" *[=@+\-\uff1d\uff20\uff0b\uff0d\t\r\n]"  # also in their wide forms, for Asian spreadsheets
DANGEROUS: Final = re.compile(rf"{FIELD_START}(?='|{FORMULA_START})(?!{PLAIN_NUMBER})")
GUARD: Final = re.compile(rf"{FIELD_START}'")


def guard_formulas(text: str) -> str:
    """The text with a quote mark before whatever a spreadsheet could take for a formula.

    Example:
        >>> guard_formulas("=cmd()"), guard_formulas("m1;2024-01-01;=1+1"), guard_formulas("m1,2024-01-01,-0.5")
        ("'=cmd()", "m1;2024-01-01;'=1+1", 'm1,2024-01-01,-0.5')
    """
    return DANGEROUS.sub("'", text)


def remove_guards(text: str) -> str:
    """The text that was guarded.

    Example:
        >>> remove_guards("m1;2024-01-01;'=1+1")
        'm1;2024-01-01;=1+1'
    """
    return GUARD.sub("", text)
