"""A scheduled DAG with a branch, a group, a wait and a teardown."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, TaskGroup, task

with DAG(
    dag_id="nightly",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["sample", "scheduled"],
    doc_md="Every night at three: make room, load, report on Mondays, clean up.",
) as dag:
    make_room = BashOperator(task_id="make_room", bash_command="echo making room").as_setup()

    with TaskGroup("load") as load:
        wait = TimeDeltaSensor(
            task_id="wait_a_moment", delta=timedelta(seconds=2), mode="reschedule", poke_interval=2
        )
        for table in ("orders", "customers"):
            wait >> BashOperator(task_id=table, bash_command=f"echo loading {table}")

    @task.branch
    def is_it_monday(run_after=None, dag_run=None) -> str:
        day = (dag_run.logical_date or dag_run.run_after).weekday()
        return "report" if day == 0 else "no_report"

    report = BashOperator(task_id="report", bash_command="echo reporting")
    no_report = EmptyOperator(task_id="no_report")
    clean_up = BashOperator(task_id="clean_up", bash_command="echo cleaning up").as_teardown(setups=make_room)

    make_room >> load >> is_it_monday() >> [report, no_report] >> clean_up
