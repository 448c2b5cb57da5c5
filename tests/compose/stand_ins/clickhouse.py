"""Stands in for ClickHouse's server: our HTTP front over the embedded engine, with the users of the compose file.

The front itself listens on the loopback address only, with passwords of its own making; here it is given others.
"""

import os
from pathlib import Path

import uvicorn

from energy_iot.serving.chdb_sessions import ChdbSessions
from energy_iot.serving.clickhouse_http import FrontApp
from energy_iot.serving.front_file import READER, WRITER

passwords = {user: os.environ[f"CLICKHOUSE_{user.upper()}_PASSWORD"] for user in (WRITER, READER)}
sessions = ChdbSessions(Path("/var/lib/clickhouse/chdb"), "energy_analytics")
front = FrontApp(sessions, passwords)
try:
    uvicorn.run(front.app, host="0.0.0.0", port=8123, log_level="warning", access_log=False, lifespan="off")
finally:
    front.stop()
    sessions.close()
