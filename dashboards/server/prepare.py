"""Bring a Superset to the state that this project describes: its database, two users, the bundles, who sees what.

Runs in Superset's environment and in one process: each of Superset's own commands costs ten seconds of imports. May be
repeated; dashboards of the bundles become again what their files say, others are left alone.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from flask_migrate import upgrade
from superset.app import create_app

ANALYST_PERMISSIONS = (
    ("can_read", "Dashboard"),
    ("can_read", "Chart"),
    ("can_read", "CurrentUserRestApi"),
    ("can_read", "Theme"),
    ("can_read", "CssTemplate"),
    ("can_read", "DashboardFilterStateRestApi"),
    ("can_write", "DashboardFilterStateRestApi"),
    ("can_read", "DashboardPermalinkRestApi"),
    ("can_dashboard", "Superset"),
    ("can_time_range", "Api"),
    ("can_welcome", "Superset"),
    ("menu_access", "Dashboards"),
)


def main() -> None:
    """Arguments: the bundles, as zip files; the first of them holds the dashboard that a user sees first."""
    state = json.loads(Path(os.environ["SUPERSET_STATE"]).read_text())
    app = create_app()
    with app.app_context():
        upgrade(directory=str(Path(sys.modules["superset"].__file__).parent / "migrations"))
        make_roles()
        for user in state["users"]:
            make_user(**user)
        imported = [uuid for bundle in sys.argv[1:] for uuid in import_bundle(Path(bundle))]
        show_to_analysts(imported, state["first_dashboard"])


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


def show_to_analysts(uuids: list[str], first_slug: str) -> None:
    """Let analysts see these dashboards and, once logged in, the first of them."""
    from superset import db, security_manager
    from superset.models.dashboard import Dashboard
    from superset.models.user_attributes import UserAttribute

    analyst = security_manager.find_role("Analyst")
    dashboards: list[Any] = db.session.query(Dashboard).filter(Dashboard.uuid.in_(uuids)).all()
    for dashboard in dashboards:
        dashboard.roles, dashboard.published = [analyst], True
    first = next(dashboard for dashboard in dashboards if dashboard.slug == first_slug)
    for user in analyst.user:
        attribute = db.session.query(UserAttribute).filter_by(user_id=user.id).one_or_none()
        if attribute is None:
            attribute = UserAttribute(user_id=user.id)
            db.session.add(attribute)
        attribute.welcome_dashboard_id = first.id
    db.session.commit()


if __name__ == "__main__":
    main()
