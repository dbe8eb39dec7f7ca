"""What the table of example states keeps and what it leaves out."""

from __future__ import annotations

from typing import Any

from example_states import EXCLUDED, Round, table

DAG_IDS = ["steady", "fickle", "refused", "slow", next(iter(EXCLUDED))]


def a_round(fickle_state: str, slow_s: float = 5) -> Round:
    ends: dict[str, Any] = {
        dag_id: {"run": "success", "tis": {"task": "success"}} for dag_id in ("steady", "slow")
    }
    ends["fickle"] = {"run": fickle_state, "tis": {"task": fickle_state}}
    return Round(
        files={"dags.py": {"dag_ids": DAG_IDS, "error": None}},
        ends=ends,
        refused={"refused": "Airflow refuses the trigger with 400: no"},
        seconds={"steady": 1, "fickle": 1, "slow": slow_s},
    )


def test_a_dag_that_ends_alike_in_every_round_is_kept() -> None:
    result = table([a_round("success"), a_round("failed")])
    assert result["dags"] == {
        "slow": {"run": "success", "tis": {"task": "success"}},
        "steady": {"run": "success", "tis": {"task": "success"}},
    }


def test_every_dag_is_either_in_the_table_or_excluded_with_a_reason() -> None:
    result = table([a_round("success"), a_round("failed")])
    assert {*result["dags"], *result["excluded"]} == {*DAG_IDS, *EXCLUDED}
    assert result["excluded"]["fickle"].startswith("ended differently in 2 rounds")
    assert all(result["excluded"].values())


def test_the_slowest_round_decides_whether_a_dag_is_slow() -> None:
    assert table([a_round("success"), a_round("success", slow_s=120.6)])["slow_s"] == {"slow": 121}
