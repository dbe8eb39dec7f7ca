"""Dynamic mapping: one task for each element of a list that is known only at run time."""

from __future__ import annotations

import random
import time

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, tags=["sample", "mapping"])
def fan_out():
    """Count the primes below some random numbers, each in a task of its own."""

    @task
    def numbers() -> list[int]:
        return [random.randrange(2_000, 20_000) for _ in range(8)]

    @task(retries=2, retry_delay=1)
    def count_primes(below: int) -> int:
        time.sleep(random.random())
        found = sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))
        print(f"there are {found} primes below {below}")
        return found

    @task
    def total(counts: list[int]) -> int:
        return sum(counts)

    total(count_primes.expand(below=numbers()))


fan_out()
