"""Twenty tasks that do nothing, one after the other: the time from an end to the next start."""

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def bench_noop_chain():
    @task
    def noop():
        pass

    previous = None
    for _ in range(20):
        current = noop()
        if previous is not None:
            previous >> current
        previous = current


bench_noop_chain()
