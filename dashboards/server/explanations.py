"""Pages that explain why a meter is on the inspection list, for those who are logged in."""

import subprocess
from pathlib import Path

from flask import Blueprint, Response, abort, current_app, send_file
from flask_login import login_required
from flask_talisman import Talisman

LONGEST_SECONDS = 60

explanations = Blueprint("explanations", __name__, url_prefix="/explanations")


@explanations.route("/<path:meter_id>")
@login_required
@Talisman()(content_security_policy=None)  # the page has a policy of its own, for its own scripts
def explanation(meter_id: str) -> Response:
    """The page of a meter, made anew: the list may be another one since it was last asked for."""
    folder = Path(current_app.config["EXPLANATIONS_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{meter_id.encode().hex()}.html"
    command = [*current_app.config["EXPLAIN_COMMAND"], "--html", str(page), "--", meter_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    if done.returncode:
        abort(Response(done.stderr, 404, mimetype="text/plain"))
    return send_file(page)
