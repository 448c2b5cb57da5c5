"""What the scheduler imports once: its tasks are forks of it, and so need not import it each, for seconds."""

import sys
from importlib import import_module
from pkgutil import resolve_name

if "scheduler" in sys.argv:
    from energy_iot.pipeline import STEPS

    for step in STEPS:
        resolve_name(step.function)
    for name in ("dbt.adapters.postgres", "great_expectations"):  # which steps import when they run
        import_module(name)
