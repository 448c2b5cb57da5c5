"""One HTML page about one meter: self-contained, to be sent with the crew."""

import re
from pathlib import Path

from energy_iot.errors import StorageError
from energy_iot.ml.explain import Explanation, to_text
from energy_iot.ml.rank import describe_loss, explanations
from energy_iot.reporting import explain_charts
from energy_iot.reporting.page import render_page, replace_file, vega_bundle
from energy_iot.settings import Settings


def page_name(meter_id: str) -> str:
    """File name of a meter's page; meters may be called anything.

    Example:
        >>> page_name("M000001-2"), page_name("a/b ü")
        ('explain_M000001-2.html', 'explain_a_b__.html')
    """
    return f"explain_{re.sub(r'[^A-Za-z0-9._-]', '_', meter_id)}.html"


def write_explanation(settings: Settings, explanation: Explanation, destination: Path | None) -> Path:
    """Write the page, into the reports folder by default; returns its absolute path.

    Raises:
        StorageError: The file cannot be written.
    """
    name = page_name(explanation.suspect.meter_id)
    destination = (destination or settings.reports_dir / name).expanduser().absolute()
    page = render_explanation(explanation, bundle=vega_bundle(settings.home / "cache"))
    try:
        replace_file(destination, page)
    except OSError as error:
        raise StorageError(
            f"{destination}: the page cannot be written: {error.strerror or error}",
            fix="choose another place, or make room and allow writing there",
        ) from error
    return destination


def render_explanation(explanation: Explanation, *, bundle: str) -> str:
    """The page as HTML text; `bundle` is the charts' library, from `vega_bundle`."""
    specs = {}
    if explanation.days:
        specs["days"] = explain_charts.days_chart(explanation)
        specs["profile"] = explain_charts.profile_chart(explanation)
        if explanation.node_days:
            specs["transformer"] = explain_charts.transformer_chart(explanation)
    return render_page(
        "explain.html.j2",
        specs=specs,
        bundle=bundle,
        explanation=explanation,
        suspect=explanation.suspect,
        reasons=explanations(explanation.suspect),
        loss=describe_loss(explanation.suspect).replace("\n", ", "),
        text=to_text(explanation),
    )
