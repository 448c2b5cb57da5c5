"""What Python and dbt both say about the scores they share."""

import re

from energy_iot.ml.config import SCORES_STATE, SCORES_TABLE, VERSION_IN_FORCE
from energy_iot.transformation.dbt import DBT_PROJECT_DIR

MACROS = DBT_PROJECT_DIR / "macros"


def test_models_wait_for_the_state_that_scoring_writes() -> None:
    macro = (MACROS / "incremental.sql").read_text()
    named = re.search(r"'source\.energy_iot\.(\S+)' -%\}\s*\{%- do inputs\.append\('(\w+)'\)", macro)
    assert named is not None
    assert named.groups() == (SCORES_TABLE, SCORES_STATE)


def test_both_mean_the_same_version_in_force() -> None:
    macro = (MACROS / "version_in_force.sql").read_text()
    body = re.search(r"-%\}(.*)\{%- endmacro", macro, re.DOTALL)
    assert body is not None
    query = body[1].replace("{{ source('ml', 'model_versions') }}", "ml.model_versions")
    assert " ".join(query.split()) == VERSION_IN_FORCE
