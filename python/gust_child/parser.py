"""Parses many DAG files in one child and streams what each holds.

Started with a ``GustParse`` body in the first frame. Every result is a request of kind ``GustFileParsed``,
answered with an empty reply; the SDK's own requests (Variable, Connection) travel on the same socket.
"""

from __future__ import annotations

import os
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import msgspec
from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag
from airflow.dag_processing.importers import get_importer_registry
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder
from airflow.serialization.serialized_objects import DagSerialization

from gust_child import warm, wire


class Message:
    """A body of Gust's own, in the shape that the SDK's socket sends."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self._body = {"type": kind, **fields}

    def model_dump(self) -> dict[str, Any]:
        """What goes on the wire."""
        return self._body


class ParseOrder(msgspec.Struct, frozen=True):
    """What to parse: the given files, or all that the folder holds."""

    bundle_path: str
    bundle_name: str
    safe_mode: bool = True
    files: list[str] | None = None


def list_files(root: Path, safe_mode: bool) -> list[str]:
    """DAG files below a bundle's root, relative and sorted. With a ``dags`` folder only those in it."""
    folder = root / "dags" if (root / "dags").is_dir() else root
    found = get_importer_registry().list_dag_files(str(folder), safe_mode=safe_mode)
    return sorted(os.path.relpath(file, root) for file in found)


def _wants_example_plugins(file: Path) -> bool:
    """Whether a file takes a timetable or strategy from Airflow's examples; those must be registered."""
    try:
        return warm.EXAMPLE_PLUGINS.encode() in file.read_bytes()
    except OSError:
        return False


def parse_file(root: Path, bundle_name: str, rel_path: str, safe_mode: bool) -> dict[str, Any]:
    """Import one file and serialize its DAGs. What fails for one DAG is an import error of its file."""
    started = time.monotonic()
    file = root / rel_path
    if _wants_example_plugins(file):
        warm.use_example_plugins()
    dags: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    notes: list[str] = []
    depth = conf.getint("core", "dagbag_import_error_traceback_depth", fallback=2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # The bag reports the warnings itself; emitting them once more would only reach stderr.
            warnings.showwarning = lambda *_, **__: None
            bag = DagBag(
                str(file), bundle_path=root, bundle_name=bundle_name, safe_mode=safe_mode, load_op_links=False
            )
        errors.update(bag.import_errors)
        notes.extend(line for lines in bag.captured_warnings.values() for line in lines)
        for dag_id in sorted(bag.dags):
            try:
                data = DagSerialization.to_dict(bag.dags[dag_id])
                dags.append({"dag_id": dag_id, "data": wire.dumps(data).decode()})
            except Exception:
                errors[rel_path] = traceback.format_exc(limit=-depth)
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        errors[rel_path] = traceback.format_exc(limit=-depth)
    return {
        "path": rel_path,
        "dags": dags,
        "import_errors": errors,
        "warnings": notes,
        "duration_s": time.monotonic() - started,
    }


def main() -> None:
    """The child's life: take the order, say which files there are, then report each as it ends."""
    comms: Any = CommsDecoder()
    order = msgspec.convert(comms._read_frame().body, ParseOrder, strict=False)
    task_runner.SUPERVISOR_COMMS = comms
    root = Path(order.bundle_path)
    files = order.files
    if files is None:
        files = list_files(root, order.safe_mode)
        comms.send(Message("GustFilesFound", paths=files))
    # What the owner names it wants parsed; the heuristic is for finding files.
    safe_mode = order.safe_mode and order.files is None
    for rel_path in files:
        comms.send(Message("GustFileStarted", path=rel_path))
        comms.send(Message("GustFileParsed", **parse_file(root, order.bundle_name, rel_path, safe_mode)))
