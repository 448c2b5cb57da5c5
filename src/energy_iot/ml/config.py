"""Constants of the detector; what a user may want to change is in `Settings`."""

from typing import Final

FEATURE_TABLE: Final = "intermediate.int_consumption_features"
SCORES_TABLE: Final = "ml.reading_scores"
FEATURE_DAYS_TABLE: Final = "ml.feature_days"
SCORE_DAYS_TABLE: Final = "ml.score_days"
METER_FEATURES_TABLE: Final = "intermediate.int_meter_features"
SUSPICIONS_TABLE: Final = "ml.meter_suspicions"

# Rows of quality.derived_states: how far the scores are, and how far what they are made from is.
SCORES_STATE: Final = "ml_score"
FEATURES_STATE: Final = "int_consumption_features"
METER_FEATURES_STATE: Final = "int_meter_features"
SUSPICIONS_STATE: Final = "ml_meter_suspicions"

# SQL of the version whose scores count: the one that came into force last; in_force_since is never the same twice.
VERSION_IN_FORCE: Final = (
    "select model_version from ml.model_versions where in_force_since is not null order by in_force_since desc limit 1"
)

# A feature over the last 24 h means something once this much of them is there: over less, a morning is compared with
# a night.
MIN_WINDOW_HOURS: Final = 18

# Readings each tree sees. Liu, Ting & Zhou (2008), doi:10.1109/ICDM.2008.17, section 5: more does not help, and
# hides anomalies behind one another (swamping and masking); it also keeps trees 8 levels deep.
SUBSAMPLE_READINGS: Final = 256

# Readings scored at once by one thread: enough to amortise 100 calls, small enough to stay in the processor's cache
# (measured on 2 cores: 10,000 -> 220,000 readings/s, 50,000 -> 320,000/s, 200,000 -> 180,000/s).
BATCH_READINGS: Final = 50_000

# The share of anomalies is judged over at least so many days of meters: one fault makes many readings of its day odd,
# so days are what is counted, and fewer than thirty of anything give no share.
MIN_JUDGED_DAYS: Final = 30
# New days are told to hold too many anomalies when chance does not explain it: this many standard errors.
NOTABLE_ERRORS: Final = 3.0

# A model fits until the table has grown to this many times what it was drawn from: then most readings are of a time,
# or of meters, that it has not seen. A daily feed retrains after 1, 2, 4, 8 ... days, ever more rarely.
MAX_GROWTH: Final = 2.0

# Where the distribution of the training scores is kept: even steps for comparing distributions, finer in the upper
# tail, where thresholds lie.
QUANTILE_PROBABILITIES: Final = tuple(
    sorted({*(step / 200 for step in range(201)), *(0.9 + step / 1000 for step in range(101)), 0.9995, 0.9999})
)

# Version of the ranking of meters. Rises when its features, rules, weights or causes change: scores of another version
# cannot be compared.
RANKING_VERSION: Final = 1
