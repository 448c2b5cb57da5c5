"""Whether two outputs of `energy-iot status --json`, one after the other on standard input, count the same rows."""

import json
import sys

text = sys.stdin.read()
before, end = json.JSONDecoder().raw_decode(text)
after = json.loads(text[end:])
if before["rows"] != after["rows"]:
    sys.exit(f"error: rows differ\n  before: {before['rows']}\n  now:    {after['rows']}")
print(f"rows as before: {after['rows']}")  # noqa: T201  # what this program is for
