"""What the terminal says of losses and suspects after a run."""

import doctest
from dataclasses import replace
from datetime import date

from rich.console import Console

from energy_iot.ml import rank
from energy_iot.ml.rank import Suspect
from energy_iot.reporting.findings import Findings, NodeLoss
from energy_iot.reporting.summary import findings_tables

SUSPECT = Suspect(
    "M000007", 0.934, 1, 0.8, date(2026, 2, 11), 412.5, 45_375.0, "XOF", "T01", 0.17, "residential", None, None,
    None, "fell to 0.31 of before; flat for 12 days; at night only", date(2026, 3, 1),
)  # fmt: skip
LOSS = NodeLoss("T01", "transformer", date(2026, 1, 1), date(2026, 3, 1), 9000, 7000, 500, 1500, 165_000, "XOF")


def printed(findings: Findings) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(findings_tables(findings, command="energy-iot --home here"))
    return capture.get()


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(rank)
    assert result.attempted
    assert not result.failed


def test_losses_and_suspects_with_their_first_reasons() -> None:
    text = printed(Findings((SUSPECT,), 620, (LOSS,)))
    assert "2026-01 to 2026-03" in text
    (loss,) = (line.split() for line in text.splitlines() if line.split()[:1] == ["T01"])
    assert loss == ["T01", "9,000", "7,000", "500", "1,500", "16.7%", "165,000", "XOF"]
    assert "1 of 620 meters, the most suspicious first; as of 2026-03-01" in text
    for said in ("M000007", "412 kWh", "45,375 XOF", "fell to 0.31 of before", "flat for 12 days", "and 1 more"):
        assert said in text
    assert "at night only" not in text
    assert "all: energy-iot --home here rank\nwhy: energy-iot --home here explain METER" in text


def test_what_is_not_known_is_left_out() -> None:
    assert printed(Findings()).strip() == ""
    unknown = replace(LOSS, unexplained_value=None, currency=None)
    (line,) = (line for line in printed(Findings(losses=(unknown,))).splitlines() if line.split()[:1] == ["T01"])
    assert line.split()[-1] == "16.7%"
    assert "None" not in line
