"""Ten Python tasks of about a second each, one after the other: where the work itself dominates."""

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def bench_fibo_33():
    @task
    def fibo(n):
        def value(k):
            return k if k < 2 else value(k - 1) + value(k - 2)

        return value(n)

    previous = None
    for _ in range(10):
        current = fibo(33)
        if previous is not None:
            previous >> current
        previous = current


bench_fibo_33()
