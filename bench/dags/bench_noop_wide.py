"""Two hundred tasks that do nothing and wait for nobody: tasks a second."""

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def bench_noop_wide():
    @task
    def noop():
        pass

    for _ in range(200):
        noop()


bench_noop_wide()
