"""A first DAG: three steps that hand values on."""

from __future__ import annotations

from airflow.sdk import Param, dag, task


@dag(schedule=None, tags=["sample"], params={"name": Param("world", type="string", minLength=1)})
def hello():
    """Greet whoever the run's parameters name."""

    @task
    def greeting(params: dict | None = None) -> str:
        return f"Hello, {(params or {})['name']}!"

    @task
    def shout(text: str) -> str:
        return text.upper()

    @task.bash
    def say(text: str) -> str:
        return f"echo '{text}'"

    say(shout(greeting()))


hello()
