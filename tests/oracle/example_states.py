"""Run Airflow's own example DAGs under real Airflow and write down how each of them ends.

    python3 tests/oracle/example_states.py [--airflow-python PATH] [--rounds 2] [--store postgres]

Every DAG is triggered once by hand without a logical date, in a metastore where nothing ran before. This
is done in several rounds, each from nothing; a DAG that does not end the same way each time is left out of
the table, with that as the reason. The scheduler creates no runs of its own (`use_job_schedule = False`
stops scheduled and asset-triggered runs alike), so the table holds the triggered runs only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_peer import AIRFLOW_VERSION, Airflow, Postgres, ensure_airflow
from rest import END_STATES, Json, Rest, RestError

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = "example_dags"

# Longer than this is waiting, not working: tests may want to leave these out.
SLOW_S = 120

ASSET_CLASH = "two files name the asset s3://output/1.txt differently; whichever is parsed first works"

# What needs something that a test machine has not got, or depends on chance. Everything else is run.
EXCLUDED = {
    "asset_with_extra_by_context": ASSET_CLASH,
    "asset_with_extra_by_yield": ASSET_CLASH,
    "asset_with_extra_from_classic_operator": ASSET_CLASH,
    "read_asset_event": ASSET_CLASH,
    "read_asset_event_from_classic": ASSET_CLASH,
    "example_dag_decorator": "needs the network: fetches https://httpbingo.org/get",
    "tutorial_objectstorage": "needs the network, an S3 bucket, pandas and duckdb",
    "tutorial_taskflow_api_virtualenv": "needs the network: installs packages into a virtualenv",
}

# Configuration that a DAG refuses to be triggered without.
CONF: dict[str, Json] = {"example_params_ui_tutorial": {"required_field": "ten or more"}}

# DAGs that read what others have left behind are triggered once those have ended.
AFTER = {
    "example_asset_state_store_consumer": ["example_asset_state_store_producer"],
    "asset2_producer": ["asset1_producer"],
}

# Asked of Airflow's own DagBag: which files are DAG files, and which DAGs they hold.
PROBE = """
import json, logging, sys
from pathlib import Path
logging.disable(logging.CRITICAL)
import airflow.example_dags
from airflow.dag_processing.dagbag import DagBag
from airflow.dag_processing.importers import get_importer_registry
root = Path(next(iter(airflow.example_dags.__path__)))
found = {}
for name in sorted(get_importer_registry().list_dag_files(str(root), safe_mode=True)):
    bag = DagBag(name, bundle_path=root, bundle_name="example_dags", load_op_links=False)
    found[str(Path(name).relative_to(root))] = sorted(bag.dags)
sys.stdout.write("\\nFOUND " + json.dumps(found))
"""

SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "True",
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}


@dataclass
class Round:
    """What one round saw: how files parsed, how runs ended and how long they took."""

    files: dict[str, Json] = field(default_factory=dict)
    ends: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def dag_ids(self) -> set[str]:
        """Return the ids of all DAGs that were parsed."""
        return {dag_id for entry in self.files.values() for dag_id in entry["dag_ids"]}


def probe(airflow: Airflow) -> dict[str, list[str]]:
    """Return the DAG ids of every example file, as Airflow's DagBag finds them."""
    done = subprocess.run(
        [str(airflow.python), "-c", PROBE],
        env=airflow.env,
        cwd=airflow.home,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(done.stdout.decode().rpartition("FOUND ")[2])
    return found


def wait_parsed(rest: Rest, expected: dict[str, list[str]], timeout_s: float = 300) -> dict[str, Json]:
    """Wait until the DAG processor has stored every DAG or an error in its place; return what it stored."""
    wanted = {dag_id for ids in expected.values() for dag_id in ids}
    deadline = time.monotonic() + timeout_s
    while True:
        dags = [dag for dag in rest.pages("/api/v2/dags", "dags") if dag["bundle_name"] == BUNDLE]
        errors = {
            error["filename"]: str(error["stack_trace"]).strip().splitlines()[-1]
            for error in rest.pages("/api/v2/importErrors", "import_errors")
            if error["bundle_name"] == BUNDLE
        }
        lost = {dag_id for name in errors for dag_id in expected.get(name, [])}
        missing = wanted - lost - {dag["dag_id"] for dag in dags}
        if not missing:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"the DAG processor has not stored {sorted(missing)} after {timeout_s} s")
        time.sleep(1)
    files: dict[str, Json] = {
        name: {"dag_ids": [], "error": errors.get(name)} for name in sorted({*expected, *errors})
    }
    for dag in sorted(dags, key=lambda dag: str(dag["dag_id"])):
        files[dag["relative_fileloc"]]["dag_ids"].append(dag["dag_id"])
    return files


def run_round(airflow: Airflow, timeout_s: float) -> Round:
    """Trigger every DAG that can run here and wait for the ends."""
    rest = airflow.rest
    result = Round(files=wait_parsed(rest, probe(airflow)))
    dag_ids = sorted(result.dag_ids() - set(EXCLUDED))
    for dag_id in dag_ids:
        rest.unpause(dag_id)
    waiting = list(dag_ids)
    running: dict[str, str] = {}
    deadline = time.monotonic() + timeout_s
    while (waiting or running) and time.monotonic() < deadline:
        airflow.check()
        ready = [dag_id for dag_id in waiting if all(name in result.ends for name in AFTER.get(dag_id, []))]
        # A few at a time: a thousand queued tasks would only make every one of them look slow.
        for dag_id in ready[: max(0, 16 - len(running))]:
            waiting.remove(dag_id)
            try:
                running[dag_id] = rest.trigger(dag_id, CONF.get(dag_id))
            except RestError as error:
                result.refused[dag_id] = f"Airflow refuses the trigger with {error.status}: {error.detail}"
        for dag_id, run_id in list(running.items()):
            run = rest.run(dag_id, run_id)
            if run["state"] in END_STATES:
                del running[dag_id]
                result.ends[dag_id] = {"run": run["state"], "tis": rest.task_states(dag_id, run_id)}
                result.seconds[dag_id] = float(run["duration"] or 0)
                line = f"{result.seconds[dag_id]:8.1f} s  {run['state']:8} {dag_id}"
                print(line, file=sys.stderr, flush=True)
        time.sleep(0.5)
    for dag_id in running:
        states = rest.task_states(dag_id, running[dag_id])
        result.refused[dag_id] = f"did not end within {timeout_s:.0f} s under Airflow: {json.dumps(states)}"
    for dag_id in waiting:
        result.refused[dag_id] = f"never triggered: {AFTER.get(dag_id)} did not end"
    return result


def fresh_round(python: Path, work: Path, store: str, timeout_s: float) -> Round:
    """Start Airflow from nothing, run one round, and remove everything again."""
    with tempfile.TemporaryDirectory(prefix="oracle-", dir=work) as name:
        home = Path(name)
        server = Postgres({"fsync": "off", "max_connections": "200"}) if store == "postgres" else None
        try:
            url = server.url() if server else f"sqlite:///{home}/airflow.db"
            with Airflow(python, home, url, SETTINGS) as airflow:
                return run_round(airflow, timeout_s)
        finally:
            if server:
                server.stop()


def table(rounds: list[Round]) -> Json:
    """Fold the rounds into one table which holds only what all of them agree on."""
    first = rounds[0]
    excluded = dict(EXCLUDED)
    dags: dict[str, Any] = {}
    for dag_id in sorted(first.dag_ids() - set(EXCLUDED)):
        refusals = [entry.refused[dag_id] for entry in rounds if dag_id in entry.refused]
        ends = [entry.ends.get(dag_id) for entry in rounds]
        if refusals:
            excluded[dag_id] = refusals[0]
        elif any(end != ends[0] for end in ends):
            seen = json.dumps(ends, sort_keys=True)
            excluded[dag_id] = f"ended differently in {len(rounds)} rounds: {seen}"
        else:
            dags[dag_id] = ends[0]
    slow = {
        dag_id: round(max(entry.seconds[dag_id] for entry in rounds))
        for dag_id in dags
        if max(entry.seconds[dag_id] for entry in rounds) > SLOW_S
    }
    return {
        "airflow": AIRFLOW_VERSION,
        "rounds": len(rounds),
        "conf": CONF,
        "after": AFTER,
        "slow_s": slow,
        "files": first.files,
        "dags": dags,
        "excluded": dict(sorted(excluded.items())),
    }


def main() -> None:
    """Read the command line, run the rounds and write the table."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--airflow-python", type=Path, help="python of an environment with Airflow")
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / ".work", help="where to put things")
    parser.add_argument("--rounds", type=int, default=2, help="how often to run everything (default 2)")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="postgres")
    parser.add_argument("--timeout", type=float, default=1500, help="seconds that a round may take")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "fixtures" / "example_dag_states.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    python = options.airflow_python.absolute() if options.airflow_python else ensure_airflow(options.work)
    rounds = [
        fresh_round(python, options.work, options.store, options.timeout) for _ in range(options.rounds)
    ]
    result = table(rounds)
    options.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(f"{len(result['dags'])} DAGs in the table, {len(result['excluded'])} left out: {options.out}")


if __name__ == "__main__":
    main()
