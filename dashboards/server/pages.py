"""Pages of ours beside Superset's: where a user begins, and why a meter is on the inspection list."""

import subprocess
from pathlib import Path

from flask import Blueprint, Response, abort, current_app, jsonify, redirect, request, send_file
from flask_babel import get_locale
from flask_login import current_user
from flask_talisman import Talisman

LONGEST_SECONDS = 60

pages = Blueprint("pages", __name__)


@pages.before_app_request
def begin_with_a_dashboard() -> Response | None:
    """Lead from Superset's home page, which lists what one has made oneself, to the first dashboard."""
    if request.endpoint != "Superset.welcome":
        return None
    return redirect(f"/superset/dashboard/{current_app.config['FIRST_DASHBOARDS'][str(get_locale())]}/")


@pages.before_app_request
def leave_colours_alone() -> Response | None:
    """Superset's pages ask to store the colours they chose, even for those who may not, and complain of the refusal."""
    if request.endpoint != "DashboardRestApi.put_colors":
        return None
    # Superset itself does not know yet who asks
    looks_only = current_user.is_authenticated and {role.name for role in current_user.roles} == {"Analyst"}
    return jsonify(result={}) if looks_only else None


@pages.before_app_request
def let_the_login_page_report() -> Response | None:
    """Answer what Superset's login page reports a second after it is drawn, which only who is logged in may.

    The refusal would be written into the session of then, and so take back the login of who was faster.
    """
    if request.endpoint != "Superset.log" or current_user.is_authenticated:
        return None
    return Response(status=204)


@pages.route("/explanations/<path:meter_id>")
@Talisman()(content_security_policy=None)  # the page has a policy of its own, for its own scripts
def explanation(meter_id: str) -> Response:
    """The page of a meter, made anew: the list may be another one since it was last asked for."""
    from superset.views.utils import redirect_to_login

    if not current_user.is_authenticated:
        return redirect_to_login()
    folder = Path(current_app.config["EXPLANATIONS_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{meter_id.encode().hex()}.html"
    command = [*current_app.config["EXPLAIN_COMMAND"], "--html", str(page), "--", meter_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    if done.returncode:
        abort(Response(done.stderr, 404, mimetype="text/plain"))
    return send_file(page)
