"""Bring a Superset to the state that this project describes: its database, two users, the bundles, who sees what.

Runs in Superset's environment and in one process: each of Superset's own commands costs ten seconds of imports. May be
repeated; dashboards of the bundles become again what their files say, others are left alone.
"""

import json
import os
import sys
from pathlib import Path
from zipfile import ZipFile

from flask_migrate import upgrade
from superset.app import create_app

ANALYST_PERMISSIONS = (
    ("can_read", "Dashboard"),
    ("can_read", "Chart"),
    ("can_read", "CurrentUserRestApi"),
    ("can_read", "SecurityRestApi"),  # the token that requests must carry
    ("can_read", "Theme"),
    ("can_read", "CssTemplate"),
    ("can_read", "DashboardFilterStateRestApi"),
    ("can_write", "DashboardFilterStateRestApi"),
    ("can_read", "DashboardPermalinkRestApi"),
    ("can_dashboard", "Superset"),
    ("can_log", "Superset"),
    ("can_time_range", "Api"),
    ("menu_access", "Dashboards"),
)


def main() -> None:
    """Arguments: the bundles, as zip files."""
    state = json.loads(Path(os.environ["SUPERSET_STATE"]).read_text())
    app = create_app()
    with app.app_context():
        upgrade(directory=str(Path(sys.modules["superset"].__file__).parent / "migrations"))
        make_roles()
        for user in state["users"]:
            make_user(**user)
        show_to_analysts([uuid for bundle in sys.argv[1:] for uuid in import_bundle(Path(bundle))])


def make_roles() -> None:
    """Superset's own, and that of those who look at the dashboards and do nothing else."""
    from superset import appbuilder, db, security_manager

    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    analyst = security_manager.add_role("Analyst")
    analyst.permissions = [security_manager.add_permission_view_menu(*names) for names in ANALYST_PERMISSIONS]
    db.session.commit()


def make_user(username: str, password: str, role: str) -> None:
    """Make the user, or give it the password and the role again."""
    from superset import db, security_manager

    user = security_manager.find_user(username=username)
    if user is None:
        user = security_manager.add_user(
            username, username.title(), "Energy IoT", f"{username}@localhost", security_manager.find_role(role)
        )
    user.roles = [security_manager.find_role(role)]
    security_manager.reset_password(user.id, password)
    db.session.commit()


def import_bundle(path: Path) -> list[str]:
    """Import databases, datasets, charts and dashboards; returns the dashboards' uuids."""
    import yaml
    from superset import security_manager
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.utils.core import override_user

    with ZipFile(path) as bundle:
        contents = {name.partition("/")[2]: bundle.read(name).decode() for name in bundle.namelist()}
    with override_user(security_manager.find_user(username="admin")):
        ImportAssetsCommand(contents).run()
    return [yaml.safe_load(text)["uuid"] for name, text in contents.items() if name.startswith("dashboards/")]


def show_to_analysts(uuids: list[str]) -> None:
    """Let analysts see these dashboards."""
    from superset import db, security_manager
    from superset.models.dashboard import Dashboard

    analyst = security_manager.find_role("Analyst")
    for dashboard in db.session.query(Dashboard).filter(Dashboard.uuid.in_(uuids)):
        dashboard.roles, dashboard.published = [analyst], True
    db.session.commit()


if __name__ == "__main__":
    main()
