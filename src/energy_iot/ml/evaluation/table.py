"""The page that an evaluation is published on: every figure from the record beside it, none written by hand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from energy_iot.ml.evaluation.baselines import BASELINES
from energy_iot.ml.evaluation.fleet_run import PERFECT, SUSPICION, FleetResult
from energy_iot.ml.evaluation.metrics import BUDGETS, FIRST_SHARE, PRECISION_AT
from energy_iot.ml.evaluation.network import NOTABLE_TAP_SHARE, TapFigures
from energy_iot.ml.evaluation.protocol import (
    DEVELOPMENT_SEEDS,
    FIRST_EVALUATION_SEED,
    HELD_OUT_KINDS,
    TAPS_SHARE,
    THEFT_SHARE,
    Purpose,
)
from energy_iot.ml.evaluation.summary import BOOTSTRAP_SAMPLES, COMPARED_WITH, Figure, Summary
from energy_iot.reporting.formats import DASH, duration, plural, share

HEADINGS: Final = {
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "precision_first_1pct": "precision, first 1 %",
    "precision_at_20": f"precision, first {PRECISION_AT}",
    "recall_5pct": "recall, 5 % inspected",
    "stolen_kwh_5pct": "stolen kWh found, 5 %",
    "recall_10pct": "recall, 10 %",
    "stolen_kwh_10pct": "stolen kWh, 10 %",
}

# What the project set out to reach on evaluation fleets.
LEAST_ROC_AUC: Final = 0.90
LEAST_GAIN: Final = 0.10
LEAST_FIRST_PRECISION: Final = 0.8


@dataclass(frozen=True)
class Facts:
    """When, with what and on what an evaluation was made; JSON-able.

    Attributes:
        date: Day, UTC.
        command: What was typed.
        version: Of the package.
        detector: Fingerprint of what ranks the meters.
        purpose: Development or evaluation.
        repeated: Whether seeds were taken that another version had been judged on.
        seconds: Of everything.
        processors: How many there were.
        fleets: Of each: seed, meters, days, interval_minutes, readings, thieves, transformers, taps, seconds.
    """

    date: str
    command: str
    version: str
    detector: str
    purpose: str
    repeated: bool
    seconds: float
    processors: int
    fleets: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def describe_fleet(fleet: FleetResult) -> dict[str, Any]:
    """The facts of one fleet."""
    plan, truth = fleet.plan, fleet.truth
    return {
        "seed": plan.seed,
        "meters": len(truth.meter_ids),
        "days": plan.days,
        "interval_minutes": plan.interval_minutes,
        "readings": fleet.readings,
        "thieves": len(truth.theft_kinds),
        "transformers": len(fleet.transformers),
        "taps": len(truth.taps),
        "seconds": {what: round(taken, 1) for what, taken in fleet.seconds.items()},
    }


def write_page(facts: Facts, summary: Summary) -> str:
    """The page, Markdown."""
    parts = [
        _title(facts),
        _targets(summary),
        "## All rankings\n",
        f"Mean over {plural(len(facts.fleets), 'fleet')}; in brackets the 95 % interval of {BOOTSTRAP_SAMPLES:,} "
        "bootstrap samples of the meters. The same draws for every ranking.\n",
        _rankings(summary),
        _what_they_are(),
        "## Each fleet\n",
        "What another city would change shows from row to row.\n",
        _each_fleet(facts, summary),
        "## By kind of theft\n",
        "Each kind against all innocent meters, all fleets together. The budget is spent on the whole list, with all "
        "kinds in it. Kinds marked * were held out: nothing was developed with them.\n",
        _kinds(summary),
        "ROC-AUC of each ranking by kind:\n",
        _kinds_by_ranking(summary),
        "## False alarms\n",
        f"Share of innocent meters inside the {share(BUDGETS[0])} budget, by what happened to them; "
        f"{share(BUDGETS[0])} would be inspected by chance.\n",
        _causes(summary),
        "## Direct taps\n",
        "No meter sees them; the balance of the transformer does. Transformers in order of their unexplained share in "
        "`mart_losses`, in the newest whole month. Notable is a tap above "
        f"{share(NOTABLE_TAP_SHARE)} of the energy that flowed into the transformer in that month; a transformer with "
        "a smaller one keeps its place and is not judged.\n",
        _taps(summary),
        "## How this was made\n",
        _protocol(facts),
        _fleets(facts),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _title(facts: Facts) -> str:
    told = [
        "# Evaluation\n",
        "How well the inspection list finds thieves whose truth is known, on generated fleets. Written by "
        f"`{facts.command}`; the same figures with more digits are in the JSON beside this page. Generated fleets are "
        "no utility: the figures compare rankings, and tell which theft is seen and which is not. They do not promise "
        "what crews will find.\n",
    ]
    if facts.purpose == Purpose.DEVELOPMENT:
        told.append(
            "**These are development fleets.** The detector was tuned on fleets like them: the figures flatter it, and "
            "are no evaluation.\n"
        )
    elif facts.repeated:
        told.append(
            "**These fleets are not fresh.** Another version of the detector was judged on some of them before, and "
            "this one may have learned from that: a check for regressions, no evaluation.\n"
        )
    return "\n".join(told)


def _targets(summary: Summary) -> str:
    own, taps = summary.rankings[SUSPICION], summary.pooled_taps
    rows = [
        ("ROC-AUC", f"at least {LEAST_ROC_AUC:.2f}", own["roc_auc"], LEAST_ROC_AUC),
        (f"ROC-AUC above the {COMPARED_WITH}", f"at least {LEAST_GAIN:.2f}", summary.gain, LEAST_GAIN),
        (
            f"precision in the first {share(FIRST_SHARE)}",
            f"at least {LEAST_FIRST_PRECISION:.1f}",
            own["precision_first_1pct"],
            LEAST_FIRST_PRECISION,
        ),
    ]
    lines = [
        (what, wanted, _interval(figure), "yes" if (figure.value or 0) >= least else "**no**")
        for what, wanted, figure, least in rows
    ]
    possible = min(taps.notable, taps.top)
    lines.append(
        (
            f"transformers with taps above {share(NOTABLE_TAP_SHARE)} of their energy in the top decile",
            "all",
            _tap_hits(taps),
            DASH if not taps.notable else "yes" if taps.notable_in_top >= possible else "**no**",
        )
    )
    return _table(("target", "wanted", "found", "reached"), lines)


def _rankings(summary: Summary) -> str:
    return _table(
        ("ranking", *HEADINGS.values()),
        [(name, *(_interval(found[key]) for key in HEADINGS)) for name, found in summary.rankings.items()],
    )


def _what_they_are() -> str:
    told = [f"- *{baseline.name}*: {baseline.description}." for baseline in BASELINES]
    told.append(f"- *{PERFECT}*: the truth itself, who steals most first: what a budget has room for.")
    return "\n".join(told)


def _each_fleet(facts: Facts, summary: Summary) -> str:
    rows = [
        (seed, name, *(_number(found[name][key]) for key in HEADINGS))
        for seed, found in summary.fleets.items()
        for name in found
    ]
    return _table(("seed", "ranking", *HEADINGS.values()), rows)


def _kinds(summary: Summary) -> str:
    keys = [key for key in HEADINGS if not key.startswith("precision")]
    return _table(
        ("kind", "meters", *(HEADINGS[key] for key in keys)),
        [(_kind(one.kind), one.meters, *(_interval(one.figures[key]) for key in keys)) for one in summary.kinds],
    )


def _kinds_by_ranking(summary: Summary) -> str:
    names = _fallible(summary)
    return _table(
        ("kind", *names),
        [(_kind(one.kind), *(_number(one.roc_auc[name]) for name in names)) for one in summary.kinds],
    )


def _causes(summary: Summary) -> str:
    names = _fallible(summary)
    return _table(
        ("what happened", "meters", *names),
        [
            (one.cause.replace("_", " "), one.meters, *(share(one.alarms[name]) for name in names))
            for one in summary.causes
        ],
    )


def _fallible(summary: Summary) -> list[str]:
    """All rankings but the perfect one, of which there is nothing to say here."""
    return [name for name in summary.rankings if name != PERFECT]


def _taps(summary: Summary) -> str:
    rows: list[tuple[object, ...]] = [(seed, *_tap_row(taps)) for seed, taps in summary.taps.items()]
    return _table(
        ("seed", "transformers", "with taps", "notable", "top decile", "notable ones in it", "ROC-AUC"),
        [*rows, ("all in one list", *_tap_row(summary.pooled_taps))],
    )


def _tap_row(taps: TapFigures) -> tuple[object, ...]:
    return (taps.transformers, taps.tapped, taps.notable, taps.top, _tap_hits(taps), _number(taps.roc_auc))


def _tap_hits(taps: TapFigures) -> str:
    if not taps.notable:
        return DASH
    room = f", room for {taps.top}" if taps.top < taps.notable else ""
    return f"{taps.notable_in_top:g} of {taps.notable}{room}"


def _protocol(facts: Facts) -> str:
    first, last = DEVELOPMENT_SEEDS[0], DEVELOPMENT_SEEDS[-1]
    kinds = " and ".join(f"`{kind}`" for kind in HELD_OUT_KINDS)
    return "\n".join(
        [
            f"- Development fleets have seeds {first} to {last}, evaluation fleets {FIRST_EVALUATION_SEED} and above; "
            "`energy-iot evaluate` refuses anything else.",
            f"- {kinds} exist in evaluation fleets only.",
            "- Thresholds and weights are in the code and the default settings, chosen on development fleets. The "
            "command ignores settings of its caller.",
            "- `truth.csv` is moved away before the pipeline starts.",
            "- No figure is shown before all fleets are done. Seeds that a version of the detector was judged on are "
            "spent for every later version, for which the command takes fresh ones (`docs/evaluation_seeds.json`).",
            "- All fleets are reported, mean and each. Ties are expectations over all orders.",
            "- Accuracy is not reported (calling everybody honest is "
            f"{share(1 - THEFT_SHARE)} accurate), nor is point-adjusted F1 (doi:10.1609/aaai.v36i7.20680).",
            f"- Theft at {share(THEFT_SHARE)} of the meters, direct taps at {share(TAPS_SHARE)} of the transformers; "
            "each begins within the readings, after an honest past.",
        ]
    )


def _fleets(facts: Facts) -> str:
    rows = [
        (
            one["seed"],
            f"{one['meters']:,}",
            one["days"],
            f"{one['interval_minutes']} min",
            f"{one['readings']:,}",
            one["thieves"],
            one["transformers"],
            one["taps"],
            *(duration(one["seconds"][what]) for what in ("generate", "run", "baselines")),
        )
        for one in facts.fleets
    ]
    told = (
        f"Made on {facts.date} (UTC) with energy-iot {facts.version}, detector `{facts.detector[:12]}`, by "
        f"`{facts.command}`: {duration(facts.seconds)} on {facts.processors} processors.\n"
    )
    headings = (
        "seed", "meters", "days", "interval", "readings", "thieves", "transformers", "taps", "generate", "run",
        "baselines",
    )  # fmt: skip
    return f"{told}\n{_table(headings, rows)}"


def _kind(kind: str) -> str:
    return kind.replace("_", " ") + (" *" if kind in HELD_OUT_KINDS else "")


def _interval(figure: Figure) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return _number(figure.value)
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _table(headings: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: text to the left, figures to the right."""
    rows = list(rows)
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"
