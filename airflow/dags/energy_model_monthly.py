"""A new anomaly model each month, used only if it measures alike: an Airflow DAG over `pipeline.MODEL_STEPS`.

### What it does

Trains a model version on all readings, scores the latest 30 days with it beside the scores that count, and compares the
two: distribution of the scores, share of anomalies, agreement with labels and with inspections where there are enough.
If the bounds of the settings hold (`promotion_max_score_shift`, `promotion_max_auc_loss`, `expected_anomaly_share`) the
new version comes into force and all readings are scored with it; otherwise the old one stays, `promote_model` is
skipped and says why, and the run is green.

### By hand

`energy-iot renew-model` does the same without Airflow; `energy-iot run --rescore all` puts the newest version into
force whatever the comparison says.
"""

from airflow.sdk import CronTriggerTimetable, chain, dag, task

from energy_iot.orchestration.dag_parts import DEFAULT_ARGS, end, step_task
from energy_iot.pipeline import MODEL_STEPS


@dag(
    dag_id="energy_model_monthly",
    description="Trains an anomaly model, and puts it into force if it measures alike",
    # without a start date it waits for the next month: it does not train as soon as Airflow first sees it
    schedule=CronTriggerTimetable("0 4 1 * *", timezone="UTC"),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["energy-iot"],
    default_args=DEFAULT_ARGS,
)
def energy_model_monthly() -> None:
    """Start, the steps one after the other, end."""

    @task(doc_md="Record the run.")
    def start() -> str:
        from energy_iot.orchestration import airflow_tasks

        return airflow_tasks.begin_model_renewal()

    recorded_run = start()
    steps = [step_task(name, recorded_run) for name in MODEL_STEPS]
    chain(*steps, end(recorded_run, steps[-1]))


energy_model_monthly()
