"""The dashboards against Grafana's own TypeScript definitions, by the TypeScript compiler."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from energy_iot.serving.grafana import IMAGE
from monitoring.grafana.queries import read_dashboards

NPM = shutil.which("npm")
PACKAGES = (f"@grafana/schema@{IMAGE.split(':')[1]}", "typescript@5.9.3")  # of the Grafana that is run
COMPILER = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")
OPTIONS = "./node_modules/@grafana/schema/dist/types/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen"
# the name in the path, for each type of panel
NAMES = {"stat": "Stat", "table": "Table", "timeseries": "TimeSeries", "bargauge": "BarGauge"}
# JSON has texts where the definitions have enumerations
PLAIN = """
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
    : T extends (infer Item)[] ? Plain<Item>[] : T extends object ? { [Name in keyof T]: Plain<T[Name]> } : T;
"""

pytestmark = [pytest.mark.heavy, pytest.mark.skipif(NPM is None, reason="npm is not installed: apt-get install npm")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("types")
    subprocess.run(
        ["npm", "install", "--no-fund", "--no-audit", "--silent", *PACKAGES], cwd=made, check=True, timeout=300
    )
    return made


def typescript(given: Iterable[dict[str, Any]]) -> str:
    """A program that says of each part of the dashboards what Grafana takes it for."""
    kinds, parts = set(), []

    def declare(kind: str, value: Any) -> None:
        parts.append(f"export const part{len(parts)}: {kind} = {json.dumps(value)};")

    for dashboard in given:
        declare("Plain<Dashboard>", {name: value for name, value in dashboard.items() if name != "panels"})
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                declare("Plain<RowPanel>", panel)
                continue
            kinds.add(panel["type"])
            declare("Plain<Panel>", {name: value for name, value in panel.items() if name != "options"})
            # options that are newer than the dashboard have defaults
            declare(f"Partial<Plain<{panel['type']}>>", panel.get("options", {}))
    imports = [
        f'import type {{ Options as {kind} }} from "{OPTIONS.format(kind=kind, name=NAMES[kind])}";'
        for kind in sorted(kinds)
    ]
    return "\n".join(['import type { Dashboard, Panel, RowPanel } from "@grafana/schema";', *imports, PLAIN, *parts])


def complaints(folder: Path, given: Iterable[dict[str, Any]]) -> str:
    (folder / "check.ts").write_text(typescript(given))
    compiler = folder / "node_modules" / ".bin" / "tsc"
    return subprocess.run(
        [compiler, *COMPILER, "check.ts"], cwd=folder, capture_output=True, text=True, timeout=300
    ).stdout


def test_grafana_takes_every_part_for_what_it_is(folder: Path) -> None:
    assert complaints(folder, read_dashboards().values()) == ""


@pytest.mark.parametrize("place", ["uid", "panel", "options"])
def test_a_wrong_type_is_found(folder: Path, place: str) -> None:
    wrong = json.loads(json.dumps(read_dashboards()["pipeline"]))
    panel = next(panel for panel in wrong["panels"] if panel["type"] == "stat")
    if place == "uid":
        wrong["uid"] = 3
    elif place == "panel":
        panel["fieldConfig"]["defaults"]["unit"] = ["s"]
    else:
        panel["options"]["textMode"] = "loud"
    assert "error TS" in complaints(folder, [wrong])
