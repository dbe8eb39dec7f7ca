"""Ask Airflow itself what its timetables answer, and write that down as test data.

Run it with an interpreter that has apache-airflow 3.3.2 installed:

    python make_vectors.py timetables --seed 7 --count 400 > ../data/timetables_wide.json
    python make_vectors.py crons --seed 7 --count 500 > ../data/crons.json

`timetables` writes cases in the form of `timetables.json`, with some keys more: `manual` (what
`infer_manual_data_interval` answers for some instants), `summary`, `description`, and in each run
`partition_key` and `partition_date` where there are any; `partition_dates` (what keys stand for) and `between` (when
the first eight runs of a backfill are due).

`crons` writes what croniter makes of an expression on naive time: `{expression, valid, covers_every_hour,
description, next: [[from, to]], prev: [[from, to]]}`; `to` is null where croniter finds no match.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import itertools
import json
import logging
import random
import sys
import time
import warnings
import zoneinfo
from unittest import mock

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import pendulum  # noqa: E402
import structlog  # noqa: E402
from airflow.serialization.decoders import decode_timetable  # noqa: E402
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction  # noqa: E402
from croniter import croniter  # noqa: E402
from croniter.croniter import CroniterError  # noqa: E402

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

UTC = dt.UTC
ZONES = [
    "UTC",
    "utc",
    "America/New_York",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Seoul",
    "America/St_Johns",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Cairo",
    "America/Santiago",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Asia/Gaza",
    "Europe/Moscow",
    "America/Asuncion",
    "America/Nuuk",
    "Antarctica/Troll",
    "America/Los_Angeles",
    "Atlantic/Azores",
    "Asia/Kolkata",
    "Etc/GMT+5",
    3600,
    -12600,
    20700,
]
# Days around which some zone changes its clocks, besides ordinary ones and leap days.
DAYS = [
    (2026, 3, 8),
    (2026, 3, 28),
    (2026, 3, 29),
    (2026, 4, 4),
    (2026, 4, 5),
    (2026, 9, 5),
    (2026, 9, 26),
    (2026, 10, 3),
    (2026, 10, 4),
    (2026, 10, 24),
    (2026, 10, 25),
    (2026, 11, 1),
    (2025, 11, 2),
    (2026, 2, 15),
    (2026, 2, 28),
    (2024, 2, 28),
    (2023, 12, 31),
    (2028, 2, 29),
    (2026, 7, 14),
    (2026, 1, 1),
    (2025, 12, 30),
    (2011, 12, 29),
    (2018, 11, 3),
    (2016, 3, 30),
    (2022, 3, 20),
    (2026, 3, 21),
    (2026, 4, 23),
    (2026, 10, 28),
    (2026, 9, 12),
    (2026, 3, 14),
    (2035, 10, 27),
    (2044, 3, 26),
]
SIMPLE = [
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@quarterly",
    "@yearly",
    "@annually",
    "@midnight",
    "0 0 * * *",
    "*/15 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "30 1 * * *",
    "0 3 * * *",
    "* * * * *",
    "0 9 * * 1-5",
]
MINUTES = [
    "*",
    "0",
    "30",
    "15",
    "59",
    "*/5",
    "*/7",
    "*/15",
    "1-5",
    "0,20,40",
    "5/20",
    "50-59/3",
    "59/15",
    "0-59",
    "7-7",
    "*,5",
    "45-15",
    "3,*/30",
    "00",
]
HOURS = [
    "*",
    "0",
    "1",
    "2",
    "3",
    "23",
    "*/2",
    "*/5",
    "1,2",
    "2-4",
    "9-17",
    "0-23",
    "22-2",
    "1-23/2",
    "*/1",
    "23/2",
    "2-2",
    "*,3",
    "02",
    "22-6/3",
]
DOMS = [
    "*",
    "1",
    "15",
    "31",
    "30",
    "29",
    "L",
    "1,15",
    "28-31",
    "*/10",
    "15,L",
    "1-31",
    "?",
    "15w",
    "1W",
    "31w",
    "W7",
    "20-L",
    "25-5",
    "31/2",
    "1-1",
    "30,31",
    "*/31",
    "l,1",
]
MONTHS = [
    "*",
    "2",
    "MAR",
    "1-6",
    "*/3",
    "jan-mar",
    "nov-feb",
    "4,6,9",
    "12/3",
    "1-12",
    "feb",
    "2,4",
    "oct-mar/2",
    "JAN-jan",
    "11",
]
DOWS = [
    "*",
    "0",
    "7",
    "SUN",
    "MON-FRI",
    "1-5",
    "sat",
    "*/2",
    "5#3",
    "L5",
    "1#2",
    "l0",
    "5-7",
    "sat-mon",
    "6-1/2",
    "fri#1,mon#2",
    "2#5",
    "?",
    "0-6",
    "mon-fri#2",
    "L1,3#1",
    "0-7",
    "sun-sun",
    "3,7",
    "5/2",
    "1-6/2",
    "l7",
    "tue,thu",
]
SECONDS = ["0", "*/20", "30", "15-45/10", "*", "59"]
YEARS = ["*", "2026", "2027-2030", "2024/2", "2026,2060", "2020", "2090"]
BAD = [
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * 32 * *",
    "* * * 13 *",
    "* * * 0 *",
    "* * * * 8",
    "* * * *",
    "",
    "* * * * * * * *",
    "a b c d e",
    "*/0 * * * *",
    "* * * * mon#6",
    "* * * * L",
    "* * * * 5L",
    "h * * * *",
    "* * LW * *",
    "* * L-3 * *",
    "1,15w * * * *",
    "* * 1,15w * *",
    "? * * * *",
    "* * ?,1 * *",
    "-1 * * * *",
    "1-70 * * * *",
    "1- * * * *",
    "*/a * * * *",
    "* * * foo *",
    "* * * * 1-5#2",
    "* * * * 1,2#1",
    "@foo",
    "@DAILY",
    "@Weekly",
    "@QUARTERLY",
    "1,,2 * * * *",
    ", * * * *",
    "1 2 3 4 5 6 7 8",
    "* * * * *#2",
    "1.5 * * * *",
    "* * 0w * *",
    "* * 32w * *",
    "* * * * 1#0",
    "5-1/0 * * * *",
    "H(0-5) * * * *",
    "* * * * 1#2#3",
    "1/2/3 * * * *",
    "1-2-3 * * * *",
    "** * * * *",
    "*-5 * * * *",
    "*/5-10 * * * *",
    "\u00a0* * * * *",
    "*\t*  * * *",
    "0 0 0 * *",
    "0 0 * 0 *",
    "7-8 * * * 7-8",
    "* * * * 0-6,1#2",
    "* * * * *,1#2",
    "* * 1-31 * */2",
    "* * */2 * 0-6",
    "0 0 30 2 *",
    "0 0 31 2,4 *",
    "0 0 31 2 1",
    "0 0 1 * 1#2",
    "0 0 31 2 1#2",
    "0 0 15w * 3",
    "0 0 15w * 6#2",
    "0 0 29 2 *",
    "0 0 29 2 1",
    "0 0 1w 2 0",
    "1-5 * * * * 61",
    "* * * * * 0 1969",
    "* * * * * 0 2100",
    "* * * * * 0 2090",
    "0 0 l * 1",
    "* * l-l * *",
    "* * l/2 * *",
    "* * jan * *",
    "* * * * jan",
    "007 * * * *",
    "5-007 * * * *",
    "*/007 * * * *",
    "0 0 1-31 * ?",
    "0 0 ? * 1",
    "0 0 1 1 ?",
    "0 0 31 * 1#1",
    "0 0 29 2 1#5",
]


def iso(value):
    return None if value is None else value.astimezone(UTC).isoformat()


def cron(rng: random.Random, *, wide: bool = True) -> str:
    roll = rng.random()
    if roll < 0.2:
        return rng.choice(SIMPLE)
    fields = [
        rng.choice(MINUTES),
        rng.choice(HOURS),
        rng.choice(DOMS) if rng.random() < 0.45 else "*",
        rng.choice(MONTHS) if rng.random() < 0.3 else "*",
        rng.choice(DOWS) if rng.random() < 0.45 else "*",
    ]
    if wide and roll > 0.9:
        fields.append(rng.choice(SECONDS))
        if roll > 0.96:
            fields.append(rng.choice(YEARS))
    return " ".join(fields)


def interval(rng: random.Random):
    return rng.choice([0.0, 0.0, 0.0, 3600.0, 86400.0, 90.5, {"months": 1}, {"days": 1, "hours": -3}])


def run_immediately(rng: random.Random):
    return rng.choice([False, False, True, 600.0, 86400.0, None, 600])


def delta(rng: random.Random, *, plain: bool = False):
    if plain or rng.random() < 0.4:
        return rng.choice(
            [60.0, 1020.0, 3600.0, 5400.0, 86400.0, 90000.0, 604800.0, 0.5, 1.25, 0.1, 7.3, 1234567.0]
        )
    return rng.choice(
        [
            {"months": 1},
            {"months": 3},
            {"years": 1},
            {"days": 1},
            {"days": 7},
            {"hours": 5},
            {"minutes": 90},
            {"months": 1, "days": 1},
            {"days": 1, "hour": 3},
            {"months": 1, "day": 31},
            {"hours": 1.5},
            {"days": 0.5, "minutes": 7},
            {"weekday": [0, 1], "days": 1},
            {"weekday": [4], "days": 2},
            {"months": 1, "day": 1, "weekday": [4, 2]},
            {"months": 1, "day": 31, "weekday": [4, -1]},
            {"years": 1, "leapdays": 1},
            {"hours": 30},
            {"months": 14},
            {"microseconds": 1500000},
            {"months": 1, "hours": -4},
            {"days": 1, "leapdays": 1, "minute": 30},
            {"seconds": 45.25},
            {"days": 3, "month": 2},
            {"years": 1, "month": 6, "day": 15},
        ]
    )


ASSETS = {
    "__type": "asset_any",
    "objects": [
        {"__type": "asset", "name": "a", "uri": "s3://a/1", "group": "asset", "extra": {}},
        {"__type": "asset_alias", "name": "alias", "group": "asset"},
        {
            "__type": "asset_all",
            "objects": [{"__type": "asset_ref", "name": "n"}, {"__type": "asset_ref", "uri": "u://x"}],
        },
    ],
}


def timetable(rng: random.Random, zone):
    kind = rng.choices(
        [
            "cron_trigger",
            "cron_interval",
            "multiple",
            "delta_trigger",
            "delta_interval",
            "partition",
            "asset_or_time",
            "events",
            "once",
            "continuous",
            "null",
            "runtime",
            "asset",
            "partitioned_asset",
        ],
        [24, 24, 10, 9, 9, 9, 6, 4, 1, 2, 0.3, 0.3, 0.3, 0.3],
    )[0]
    prefix = "airflow.timetables."
    if kind == "cron_trigger":
        return {
            "__type": prefix + "trigger.CronTriggerTimetable",
            "__var": {
                "expression": cron(rng),
                "timezone": zone,
                "interval": interval(rng),
                "run_immediately": run_immediately(rng),
            },
        }
    if kind == "cron_interval":
        return {
            "__type": prefix + "interval.CronDataIntervalTimetable",
            "__var": {"expression": cron(rng), "timezone": zone},
        }
    if kind == "multiple":
        return {
            "__type": prefix + "trigger.MultipleCronTriggerTimetable",
            "__var": {
                "expressions": [cron(rng) for _ in range(rng.randint(1, 3))],
                "timezone": zone,
                "interval": interval(rng),
                "run_immediately": run_immediately(rng),
            },
        }
    if kind == "delta_trigger":
        return {
            "__type": prefix + "trigger.DeltaTriggerTimetable",
            "__var": {"delta": delta(rng), "interval": interval(rng)},
        }
    if kind == "delta_interval":
        return {"__type": prefix + "interval.DeltaDataIntervalTimetable", "__var": {"delta": delta(rng)}}
    if kind == "partition":
        return {
            "__type": prefix + "trigger.CronPartitionTimetable",
            "__var": {
                "expression": cron(rng),
                "timezone": zone,
                "run_immediately": run_immediately(rng),
                "run_offset": rng.choice([0, 0, 1, -1, 2, -3, None]),
                "key_format": rng.choice(
                    [
                        "%Y-%m-%dT%H:%M:%S",
                        "%Y-%m-%d",
                        "%d.%m.%y %H:%M %z %Z",
                        "%Y-W%V-%u %j %a %b %p %I %f %%",
                        "%c|%x|%X",
                        "%-d/%-m %e",
                        "%Y%m%d%H",
                        "%Y-%j",
                        "%G-W%V-%u",
                        "%Y %U %w",
                        "%Y %W %A",
                        "%I:%M %p, %d %B %Y",
                        "%m%d%y%H%M%S",
                        "%d. %b %Y",
                    ]
                ),
            },
        }
    if kind == "asset_or_time":
        inner = timetable(rng, zone)
        while "asset" in inner["__type"].lower():
            inner = timetable(rng, zone)
        return {
            "__type": prefix + "assets.AssetOrTimeSchedule",
            "__var": {"asset_condition": ASSETS, "timetable": inner},
        }
    if kind == "events":
        base = dt.datetime(*rng.choice(DAYS), tzinfo=UTC)
        dates = [base + dt.timedelta(minutes=rng.randint(-20000, 20000)) for _ in range(rng.randint(0, 9))]
        if rng.random() < 0.8:
            dates.sort()
        return {
            "__type": prefix + "events.EventsTimetable",
            "__var": {
                "event_dates": [x.isoformat() for x in dates],
                "restrict_to_events": rng.random() < 0.5,
                "description": rng.choice(["Matches", "5 events"]),
                "_summary": "some events",
            },
        }
    if kind == "asset":
        return {"__type": prefix + "simple.AssetTriggeredTimetable", "__var": {"asset_condition": ASSETS}}
    if kind == "partitioned_asset":
        identity = {"__type": "airflow.partition_mappers.identity.IdentityMapper", "__var": {}}
        return {
            "__type": prefix + "simple.PartitionedAssetTimetable",
            "__var": {
                "asset_condition": ASSETS,
                "partition_mapper_config": [],
                "default_partition_mapper": identity,
            },
        }
    name = {
        "once": "OnceTimetable",
        "continuous": "ContinuousTimetable",
        "null": "NullTimetable",
        "runtime": "PartitionedAtRuntime",
    }[kind]
    return {"__type": prefix + "simple." + name, "__var": {}}


def instant(rng: random.Random) -> dt.datetime:
    day = (
        rng.choice(DAYS)
        if rng.random() < 0.85
        else (rng.randint(1972, 2060), rng.randint(1, 12), rng.randint(1, 28))
    )
    at = dt.datetime(*day, tzinfo=UTC) + dt.timedelta(minutes=rng.randint(-1500, 3000))
    roll = rng.random()
    if roll < 0.3:
        at = at.replace(minute=rng.choice([0, 15, 30, 45]))
    elif roll < 0.5:
        at += dt.timedelta(seconds=rng.randint(0, 59), microseconds=rng.choice([0, 1, 999999, 123456]))
    return at


@contextlib.contextmanager
def clock(now: dt.datetime):
    with (
        mock.patch("airflow.timetables.trigger.utcnow", lambda: now),
        mock.patch("airflow.timetables.interval.utcnow", lambda: now),
        mock.patch("airflow._shared.timezones.timezone.utcnow", lambda: now),
        mock.patch("time.time", lambda: now.timestamp()),
    ):
        yield


def run_json(info: DagRunInfo) -> dict:
    span = info.data_interval
    out = {
        "run_after": iso(info.run_after),
        "interval": span and [iso(span.start), iso(span.end)],
        "logical_date": iso(info.logical_date),
    }
    if info.partition_key is not None:
        out["partition_key"] = info.partition_key
        out["partition_date"] = iso(info.partition_date)
    return out


def in_utc(info: DagRunInfo) -> DagRunInfo:
    """What the scheduler gets back from its database: the same instants, in UTC."""
    span = info.data_interval
    return info._replace(
        run_after=pendulum.instance(info.run_after.astimezone(UTC)),
        data_interval=span and DataInterval(*(pendulum.instance(x.astimezone(UTC)) for x in span)),
    )


def partition_date(table, key: str):
    try:
        return iso(table.resolve_partition_date(key))
    except ValueError:
        return "invalid"


def between(table, earliest: dt.datetime, latest: dt.datetime) -> list[str | None]:
    """When the first runs of a backfill are due (`iter_dagrun_infos_between`, cut short); ends where Airflow fails."""
    earliest, latest, due = pendulum.instance(earliest), pendulum.instance(latest), []
    with contextlib.suppress(Exception):
        if table.partitioned:
            for info in itertools.islice(
                table.iter_partition_dagrun_infos(earliest=earliest, latest=latest), 8
            ):
                due.append(iso(info.run_after))
            return due
        info = None
        while len(due) < 8:
            restriction = TimeRestriction(earliest, latest, catchup=True)
            if (info := table.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction)) is None:
                break
            due.append(iso(info.run_after))
    return due


def timetable_case(rng: random.Random) -> dict | None:
    zone = rng.choice(ZONES)
    data = timetable(rng, zone)
    now = instant(rng)
    roll = rng.random()
    if roll < 0.15:
        start = None
    elif roll < 0.5:
        start = now - dt.timedelta(minutes=rng.randint(0, 60 * 24 * 60))
    elif roll < 0.6:
        start = now + dt.timedelta(minutes=rng.randint(0, 60 * 24 * 20))
    else:
        start = instant(rng)
    base = max(start or now, now)
    end = None if rng.random() < 0.75 else base + dt.timedelta(minutes=rng.randint(-500, 60 * 24 * 30))
    catchup = rng.random() < 0.5
    try:
        table = decode_timetable(data)
    except Exception as error:
        print(f"left out, Airflow does not decode it: {data} ({error})", file=sys.stderr)
        return None
    restriction = TimeRestriction(start and pendulum.instance(start), end and pendulum.instance(end), catchup)
    runs, manual, last = [], [], None
    with clock(now):
        for _ in range(6):
            try:
                info = table.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
            except Exception:
                # `DAG.next_dagrun_info` logs whatever goes wrong and goes on as if there were no next run.
                info = None
            if info is None:
                break
            last = in_utc(info)
            runs.append(run_json(info))
        for at in (now, instant(rng)):
            try:
                span = table.infer_manual_data_interval(run_after=pendulum.instance(at))
                manual.append([iso(at), [iso(span.start), iso(span.end)]])
            except Exception:
                manual.append([iso(at), None])
    case = {}
    if table.partitioned and hasattr(table, "_key_format"):
        keys = [run["partition_key"] for run in runs[:3]]
        keys += (
            [key[:-1] for key in keys]
            + [key[:4] + key[4:].replace("0", "", 1) for key in keys]
            + [key.replace("0", "") for key in keys if key[:2] != "20"]
            + [key.upper() for key in keys]
        )
        # Python cannot read a directive that a format has twice, as %c and %x have; whatever Gust does is as good.
        if "%c" not in table._key_format:
            case["partition_dates"] = [[key, partition_date(table, key)] for key in keys]
    if "Continuous" not in json.dumps(data):
        earliest, latest = sorted((instant(rng), instant(rng)))
        latest = min(latest, earliest + dt.timedelta(days=rng.choice([1, 3, 40])))
        case["between"] = [iso(earliest), iso(latest), between(table, earliest, latest)]
    return case | {
        "timetable": data,
        "catchup": catchup,
        "start": iso(start),
        "end": iso(end),
        "now": iso(now),
        "runs": runs,
        "manual": manual,
        "summary": table.summary,
        "description": table.description,
        "periodic": table.periodic,
        "can_be_scheduled": table.can_be_scheduled,
        "active_runs_limit": table.active_runs_limit,
        "run_ordering": list(table.run_ordering),
        "type_name": table.type_name,
    }


def cron_case(rng: random.Random, expression: str) -> dict:
    try:
        table = croniter(expression)
    except CroniterError:
        return {"expression": expression, "valid": False}
    except Exception as error:
        return {"expression": expression, "valid": False, "raised": type(error).__name__}
    case = {"expression": expression, "valid": True, "covers_every_hour": table.expanded[1] == ["*"]}
    try:
        case["description"] = decode_timetable(
            {
                "__type": "airflow.timetables.interval.CronDataIntervalTimetable",
                "__var": {"expression": expression, "timezone": "UTC"},
            }
        ).description
    except Exception as error:
        case["description_raised"] = type(error).__name__
    for name, step in (("next", "get_next"), ("prev", "get_prev")):
        case[name] = []
        at = instant(rng).replace(tzinfo=None)
        for _ in range(4):
            try:
                to = getattr(croniter(expression, start_time=at), step)(dt.datetime)
            except CroniterError:
                case[name].append([at.isoformat(), None])
                break
            case[name].append([at.isoformat(), to.isoformat()])
            at = to
    return case


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["timetables", "crons"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--all-zones", action="store_true", help="draw from every zone of the IANA database")
    options = parser.parse_args()
    if options.all_zones:
        ZONES[:] = sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})
    rng = random.Random(options.seed)
    cases = []
    if options.what == "crons":
        cases = [cron_case(rng, x) for x in BAD + SIMPLE]
        cases += [cron_case(rng, cron(rng)) for _ in range(options.count)]
    else:
        started = time.monotonic()
        while len(cases) < options.count:
            if (case := timetable_case(rng)) is not None:
                cases.append(case)
        print(f"{len(cases)} cases in {time.monotonic() - started:.1f} s", file=sys.stderr)
    print("[\n" + ",\n".join(json.dumps(case, sort_keys=True) for case in cases) + "\n]")


if __name__ == "__main__":
    main()
