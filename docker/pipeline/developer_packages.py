"""Print the packages that only development needs, which an image does without.

pyproject.toml asks for them there, and nothing else that is installed does.
"""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path


def name_of(requirement: str) -> str:
    """The package that a requirement asks for, as names are compared."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip())[0]).lower()


project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
developers = set(map(name_of, project["dependency-groups"]["dev"]))
needed = {
    name_of(requirement)
    for installed in distributions()
    if name_of(installed.metadata["Name"]) not in developers
    for requirement in installed.requires or ()
    if "extra ==" not in requirement
}
print(*sorted(developers - needed), sep="\n")  # noqa: T201  # what this program is for
