"""Answers what only user code can: custom timetables and priority strategies, which plugins register.

Started with a ``GustAsk`` body in the first frame; its one request brings an answer for each question.
"""

from __future__ import annotations

import traceback
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pendulum
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.serialized_objects import DagSerialization
from airflow.task.priority_strategy import validate_and_load_priority_weight_strategy
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.utils.types import DagRunType

from gust_child import warm
from gust_child.parser import Message


class Interval(msgspec.Struct):
    """A data interval."""

    start: datetime
    end: datetime


class RunInfo(msgspec.Struct):
    """When a run may begin, and what it covers."""

    run_after: datetime
    data_interval: Interval | None = None
    partition_key: str | None = None
    partition_date: datetime | None = None


class NextRun(msgspec.Struct, tag="next_run", tag_field="ask"):
    """When does the DAG run next?"""

    timetable: dict[str, Any]
    last: RunInfo | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    catchup: bool = False


class ManualInterval(msgspec.Struct, tag="manual_interval", tag_field="ask"):
    """What does a run triggered by hand cover?"""

    timetable: dict[str, Any]
    run_after: datetime


class Weight(msgspec.Struct, tag="weight", tag_field="ask"):
    """Which priority has a task instance?"""

    strategy: str
    dag: dict[str, Any]
    ti: dict[str, Any]


Question = NextRun | ManualInterval | Weight


class Ask(msgspec.Struct):
    """The order: questions about one bundle's plugins."""

    questions: list[Question]


def _moment(value: datetime | None) -> Any:
    return None if value is None else pendulum.instance(value)


def _interval(value: Any) -> dict[str, datetime] | None:
    return None if value is None else {"start": value.start, "end": value.end}


def _next_run(question: NextRun) -> dict[str, Any] | None:
    timetable: Any = decode_timetable(question.timetable)
    last = None
    if (told := question.last) is not None:
        interval = told.data_interval
        last = DagRunInfo(
            run_after=_moment(told.run_after),
            data_interval=interval and DataInterval(_moment(interval.start), _moment(interval.end)),
            partition_date=_moment(told.partition_date),
            partition_key=told.partition_key,
        )
    restriction = TimeRestriction(_moment(question.earliest), _moment(question.latest), question.catchup)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    if info is None:
        return None
    run_id = timetable.generate_run_id(
        run_type=DagRunType.SCHEDULED, run_after=info.run_after, data_interval=info.data_interval
    )
    return {
        "run_after": info.run_after,
        "data_interval": _interval(info.data_interval),
        "partition_key": info.partition_key,
        "partition_date": info.partition_date,
        "run_id": run_id,
    }


def _manual_interval(question: ManualInterval) -> dict[str, Any] | None:
    timetable: Any = decode_timetable(question.timetable)
    return _interval(timetable.infer_manual_data_interval(run_after=_moment(question.run_after)))


def _weight(question: Weight) -> int:
    strategy: Any = validate_and_load_priority_weight_strategy(question.strategy)
    task = DagSerialization.from_dict(question.dag).get_task(question.ti["task_id"])
    return int(strategy.get_weight(SimpleNamespace(**question.ti, task=task)))


def answer(question: Question) -> dict[str, Any]:
    """One answer: ``{"told": …}`` or ``{"error": traceback}``."""
    try:
        if isinstance(question, NextRun):
            return {"told": _next_run(question)}
        if isinstance(question, ManualInterval):
            return {"told": _manual_interval(question)}
        return {"told": _weight(question)}
    except Exception:
        return {"error": traceback.format_exc(limit=-4)}


def main() -> None:
    """The child's life."""
    comms: Any = CommsDecoder()
    order = msgspec.convert(comms._read_frame().body, Ask, strict=False)
    task_runner.SUPERVISOR_COMMS = comms
    names = [q.strategy if isinstance(q, Weight) else str(q.timetable.get("__type")) for q in order.questions]
    if any(name.startswith(warm.EXAMPLE_PLUGINS) for name in names):
        warm.use_example_plugins()
    comms.send(Message("GustAnswers", answers=[answer(question) for question in order.questions]))
