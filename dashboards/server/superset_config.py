"""Superset's configuration.

What depends on the machine comes from a private file that `energy-iot serve superset` writes and names in
SUPERSET_STATE; where ClickHouse is, which changes when it is started again, is read at each connection.
"""

import json
import os
from pathlib import Path
from typing import Any

from pages import pages
from sqlalchemy.engine import URL, make_url

STATE: dict[str, Any] = json.loads(Path(os.environ["SUPERSET_STATE"]).read_text())

SECRET_KEY = STATE["secret_key"]
SQLALCHEMY_DATABASE_URI = STATE["database_url"]
EXPLAIN_COMMAND = STATE["explain_command"]
EXPLANATIONS_DIR = STATE["explanations_dir"]
FIRST_DASHBOARDS = STATE["first_dashboards"]  # by language
APP_NAME = "Energy IoT Pipeline"
LANGUAGES = {"en": {"flag": "gb", "name": "English"}, "fr": {"flag": "fr", "name": "Français"}}
TIME_GRAIN_DENYLIST = ["PT1M", "PT5M", "PT10M", "PT15M", "PT30M", "PT1H"]  # charts over time show days and longer
FEATURE_FLAGS = {"DASHBOARD_RBAC": True}  # a role sees its dashboards, and their tables only through them
BLUEPRINTS = [pages]
FAB_API_SWAGGER_UI = False
SESSION_COOKIE_SAMESITE = "Strict"
RATELIMIT_STORAGE_URI = "memory://"  # one process serves
SUPERSET_WEBSERVER_TIMEOUT = 60
# Nothing is loaded from elsewhere; Superset's own policy lets its pages report each visit to a counting service.
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": "'self'",
        "default-src": "'self'",
        "img-src": ["'self'", "blob:", "data:"],
        "object-src": "'none'",
        "script-src": ["'self'", "'strict-dynamic'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "worker-src": ["'self'", "blob:"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,
    "session_cookie_secure": False,
}


def clickhouse_url() -> URL:
    """Where ClickHouse answers a user that may read: the front of the embedded one, or a server."""
    if STATE["clickhouse_url"]:
        return make_url(STATE["clickhouse_url"])
    front = json.loads(Path(STATE["front_file"]).read_text())
    reader = STATE["reader"]
    return make_url(f"clickhousedb://{STATE['host']}").set(
        username=reader, password=front["passwords"][reader], port=front["port"]
    )


def DB_CONNECTION_MUTATOR(uri: URL, params: dict[str, Any], *_: Any) -> tuple[URL, dict[str, Any]]:  # noqa: N802  # Superset's name
    """Ask the ClickHouse that runs now: port and passwords of the embedded one are new at each of its starts."""
    if uri.get_backend_name() != "clickhousedb":
        return uri, params
    return clickhouse_url().set(database=STATE["clickhouse_database"]), params
