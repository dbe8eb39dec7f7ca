"""Forty short Python tasks, one after the other: what a task costs on top of its own work."""

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def bench_fibo_10():
    @task
    def fibo(n):
        def value(k):
            return k if k < 2 else value(k - 1) + value(k - 2)

        return value(n)

    previous = None
    for _ in range(40):
        current = fibo(10)
        if previous is not None:
            previous >> current
        previous = current


bench_fibo_10()
