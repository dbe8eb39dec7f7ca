"""Run the same DAGs on real Airflow and on Gust and print both columns.

python3 bench/run.py [--only gust|airflow] [--work DIR] [--write]

Airflow is installed from PyPI into the work folder on the first run, and gets a PostgreSQL of its own. Gust
is the release binary of this checkout (`cargo build --release` first).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "oracle"))

from airflow_peer import (
    AIRFLOW_VERSION,
    Airflow,
    Postgres,
    Process,
    clean_environment,
    ensure_airflow,
    free_port,
)
from measure import Side, measure_runs, wait_for_dags
from memory import tree_mb
from report import table
from rest import Rest

DAGS = ROOT / "bench" / "dags"
SETTLE_S = 20

# Both sides may run this many tasks at once, overall and per DAG.
PARALLELISM = 16
SHARED = {
    "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(PARALLELISM),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}

# In Airflow's favour: a scheduler that hardly sleeps and takes all tasks in one query, two API server
# processes, room for connections, no parsing during the runs, little logging.
AIRFLOW_TUNING = {
    "AIRFLOW__API__WORKERS": "2",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "20",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "0",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.01",
}
# An acknowledged write may be lost on power failure here (synchronous_commit), which Gust does not allow.
POSTGRES_TUNING = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "synchronous_commit": "off",
}


def note(text: str) -> None:
    """Say on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)


def bench_airflow(python: Path, home: Path, rounds: int) -> Side:
    """Measure real Airflow in a fresh home."""
    tuned = {**AIRFLOW_TUNING, **SHARED}
    facts = [
        "LocalExecutor on a PostgreSQL of its own",
        "byte code compiled",
        ", ".join(f"{name}={value}" for name, value in POSTGRES_TUNING.items()),
        ", ".join(
            f"{name.removeprefix('AIRFLOW__').replace('__', '.').lower()}={value}"
            for name, value in tuned.items()
            if name != "AIRFLOW__CORE__DAGS_FOLDER"
        ),
        "cold start is that of a migrated database",
    ]
    side = Side(f"Airflow {AIRFLOW_VERSION}", facts)
    server = Postgres(POSTGRES_TUNING)
    airflow = Airflow(python, home, server.url(), tuned)
    try:
        airflow.migrate()
        # The first start of all is not measured: it fills the page cache and syncs the DAGs.
        for number in range(rounds + 1):
            airflow.stop()
            elapsed_s = airflow.start()
            if number:
                side.cold_start_s.append(elapsed_s)
            note(f"  start {number}: {elapsed_s:.2f} s")
        wait_for_dags(airflow.rest)

        def memory() -> dict[str, float]:
            time.sleep(SETTLE_S)
            python_mb = sum(tree_mb(process.pid for process in airflow.processes).values())
            return {
                "control": python_mb,
                "python": 0.0,
                "database": sum(tree_mb([server.pid]).values()),
            }

        side.idle_mb = memory()
        side.times = measure_runs(airflow.rest, rounds)
        side.after_mb = memory()
    finally:
        airflow.stop()
        server.stop()
    return side


def start_gust(
    binary: Path, home: Path, python: Path | None, timeout_s: float
) -> tuple[Process, Rest, float]:
    """Start Gust's standalone mode and return it with the seconds until it was healthy."""
    port = free_port()
    command = [str(binary), "standalone", "--home", str(home), "--dags", str(DAGS), "--port", str(port)]
    if python:
        command += ["--python", str(python)]
    start = time.monotonic()
    process = Process(command, home / "bench.log", clean_environment(SHARED), home)
    rest = Rest(f"http://127.0.0.1:{port}")
    try:
        while True:
            process.check()
            try:
                rest.wait_healthy(("metadatabase", "scheduler", "dag_processor"), 1, poll_s=0.01)
                return process, rest, time.monotonic() - start
            except TimeoutError:
                if time.monotonic() - start > timeout_s:
                    raise
    except BaseException:
        process.stop(signal.SIGINT)
        raise


def bench_gust(binary: Path, home: Path, python: Path | None, rounds: int) -> Side:
    """Measure Gust in a fresh home. Its first start, which makes a Python environment, is not measured."""
    facts = [
        "one binary with in-process workers",
        "SQLite WAL synchronous=FULL (an acknowledged write survives power loss)",
        f"the same limits: parallelism {PARALLELISM}",
    ]
    version = subprocess.run([str(binary), "--version"], check=True, capture_output=True, text=True)
    side = Side(version.stdout.strip().replace("gust", "Gust"), facts)
    home.mkdir(parents=True, exist_ok=True)
    process, rest, elapsed_s = start_gust(binary, home, python, timeout_s=900)
    try:
        note(f"  start 0: {elapsed_s:.2f} s")
        for number in range(1, rounds + 1):
            process.stop(signal.SIGINT)
            process, rest, elapsed_s = start_gust(binary, home, python, timeout_s=120)
            side.cold_start_s.append(elapsed_s)
            note(f"  start {number}: {elapsed_s:.2f} s")
        wait_for_dags(rest)

        def memory() -> dict[str, float]:
            time.sleep(SETTLE_S)
            sums = tree_mb([process.pid])
            own = sums.pop(binary.resolve().name, 0.0)
            return {"control": own, "python": sum(sums.values()), "database": 0.0}

        side.idle_mb = memory()
        side.times = measure_runs(rest, rounds)
        side.after_mb = memory()
    finally:
        process.stop(signal.SIGINT)
    return side


def main() -> None:
    """Read the command line, measure and print."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--only", choices=("gust", "airflow"), help="measure one side")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "bench" / ".work", help="where to install Airflow"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each DAG runs (default 3)")
    parser.add_argument("--airflow-python", type=Path, help="python of an environment with Airflow")
    parser.add_argument("--gust", type=Path, default=ROOT / "target" / "release" / "gust", help="the binary")
    parser.add_argument("--gust-python", type=Path, help="python for Gust (default: it makes its own)")
    parser.add_argument("--write", action="store_true", help="also write bench/results/<date>.md")
    options = parser.parse_args()
    if options.only != "airflow" and not options.gust.exists():
        parser.error(f"{options.gust} does not exist: run `cargo build --release` first, or give --gust PATH")
    options.work.mkdir(parents=True, exist_ok=True)
    sides: list[Side] = []
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=options.work))
    try:
        if options.only != "gust":
            given = options.airflow_python
            python = given.absolute() if given else ensure_airflow(options.work)
            note(f"Airflow {AIRFLOW_VERSION}")
            sides.append(bench_airflow(python, scratch / "airflow", options.rounds))
        if options.only != "airflow":
            note("Gust")
            given = options.gust_python
            gust_python = given.absolute() if given else None
            sides.append(bench_gust(options.gust.resolve(), scratch / "gust", gust_python, options.rounds))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = table(sides, options.rounds)
    print(text)
    figures = json.dumps([asdict(side) for side in sides], indent=1)
    (options.work / "last.json").write_text(figures + "\n")
    if options.write:
        results = ROOT / "bench" / "results"
        results.mkdir(exist_ok=True)
        (results / f"{datetime.now(UTC):%Y-%m-%d}.md").write_text(text)


if __name__ == "__main__":
    main()
