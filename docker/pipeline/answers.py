"""A container's health: whether an address answers, and, where parts are named, whether each says that it is healthy.

python answers.py http://airflow-api-server:18080/api/v2/monitor/health scheduler
"""

import json
import sys
from urllib.request import urlopen

url, *parts = sys.argv[1:]
with urlopen(url, timeout=5) as answer:  # noqa: S310  # an address of the compose file
    told = json.load(answer) if parts else {}
sys.exit(any(told[part]["status"] != "healthy" for part in parts))
