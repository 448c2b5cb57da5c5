"""What the HTML pages share: templates, the charts' library, and a policy under which a page reaches nothing."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from energy_iot import __version__
from energy_iot.reporting import charts, formats


def vega_bundle(cache: Path) -> str:
    """Vega, Vega-Lite and vega-embed as one script without imports; bundled once, then kept in `cache` (saves 3 s)."""
    import vl_convert

    kept = cache / f"vega-{version('vl-convert-python')}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    try:
        replace_file(kept, bundle)
    except OSError:  # a full or read-only disk: slower next time, no reason to fail
        return bundle
    return bundle


def content_policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy under which the page reaches nothing and runs no script but these, by their hashes."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    # Vega sets style attributes on what it draws, which no hash can allow
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def environment() -> jinja2.Environment:
    """The templates and their filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("energy_iot.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        "count": formats.count,
        "figure": formats.figure,
        "share": formats.share,
        "energy": formats.energy,
        "energy_parts": lambda kwh: formats.energy(kwh).split(formats.THIN),
        "instant": formats.instant,
        "day": formats.day,
        "money": formats.money,
        "duration": formats.duration,
        "plural": formats.plural,
        "words": formats.words,
        "value_text": formats.value_text,
        "limits": formats.limits,
    }
    return environment


def render_page(template: str, *, specs: Mapping[str, Any], bundle: str, **values: Any) -> str:
    """A page with its style, its charts and the policy that lets it run nothing else.

    Args:
        template: Its name.
        specs: The charts by their element; a page without any carries no library.
        bundle: The charts' library, from `vega_bundle`.
        values: What else the template shows.
    """
    script, library = script_text(template_text("report.js")), script_text(bundle)
    return (
        environment()
        .get_template(template)
        .render(
            version=__version__,
            policy=content_policy([library, script] if specs else [script]),
            style=Markup(template_text("report.css")),  # noqa: S704  # our own file
            script=script,
            bundle=library,
            config=charts.CONFIG,
            specs=specs,
            **values,
        )
    )


def template_text(name: str) -> str:
    """The text of a file that lies beside the templates."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def script_text(text: str) -> Markup:
    """Script text that cannot end its own element; the same characters whose hash the policy holds."""
    return Markup(text.replace("\r\n", "\n").replace("</script", "<\\/script"))  # noqa: S704  # our own, or Vega's


def replace_file(path: Path, text: str) -> None:
    """Write a file; a reader of the old one never sees half a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
