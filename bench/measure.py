"""What is measured, on either side: runs of the bench DAGs through the REST API."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime

from rest import END_STATES, Rest, RestError


@dataclass(frozen=True)
class Case:
    """One DAG of the bench; `per` says how the time of its run is also told."""

    dag_id: str
    title: str
    tasks: int
    per: str = ""


CASES = (
    Case("bench_fibo_10", "40 × fibo(10), chained", 40),
    Case("bench_fibo_33", "10 × fibo(33), chained", 10),
    Case("bench_noop_chain", "20 no-op, chained", 20),
    Case("bench_noop_wide", "200 no-op, wide", 200, "tasks/s"),
    Case("bench_empty_chain", "100 EmptyOperator, chained", 100, "ms/hop"),
)


@dataclass
class Times:
    """The times of one DAG's runs in seconds, one entry a run."""

    run_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)


@dataclass
class Side:
    """Everything measured of one system."""

    name: str
    facts: list[str]
    times: dict[str, Times] = field(default_factory=dict)
    cold_start_s: list[float] = field(default_factory=list)
    idle_mb: dict[str, float] = field(default_factory=dict)
    after_mb: dict[str, float] = field(default_factory=dict)


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def wait_for_dags(rest: Rest, timeout_s: float = 180) -> None:
    """Wait until every DAG of the bench has been parsed, then let all of them run."""
    deadline = time.monotonic() + timeout_s
    for case in CASES:
        while True:
            try:
                rest.unpause(case.dag_id)
                break
            except RestError as error:
                if error.status != 404 or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


def measure_runs(rest: Rest, rounds: int, timeout_s: float = 600) -> dict[str, Times]:
    """Run every DAG `rounds` times, alone, and return the times."""
    result = {case.dag_id: Times() for case in CASES}
    for number in range(rounds):
        for case in CASES:
            times = result[case.dag_id]
            run_s, wall_s = _one_run(rest, case, timeout_s)
            times.run_s.append(run_s)
            times.wall_s.append(wall_s)
            line = f"  round {number + 1}: {case.title}: {run_s:.2f} s, from the trigger {wall_s:.2f} s"
            print(line, file=sys.stderr, flush=True)
    return result


def _one_run(rest: Rest, case: Case, timeout_s: float) -> tuple[float, float]:
    triggered_at = time.time()
    run_id = rest.trigger(case.dag_id)
    deadline = time.monotonic() + timeout_s
    while True:
        run = rest.run(case.dag_id, run_id)
        if run["state"] in END_STATES:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"{case.dag_id} did not end within {timeout_s} s; it is {run['state']}")
        # The times come from the server's own record, so a slow poll costs no precision; a fast
        # one would take processor time from what is measured.
        time.sleep(0.25)
    states = rest.task_states(case.dag_id, run_id)
    if run["state"] != "success" or len(states) != case.tasks:
        raise RuntimeError(f"{case.dag_id} ended {run['state']} with {states}")
    start, end = (datetime.fromisoformat(str(run[key])).timestamp() for key in ("start_date", "end_date"))
    return end - start, end - triggered_at
