"""Importing one DAG file: safely for signals, and once for all the children forked after it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from airflow.dag_processing.importers import PythonDagImporter, get_importer_registry, python_importer

from gust_child import osproc

if TYPE_CHECKING:
    from pathlib import Path


class _SignalsWithoutSegfault:
    """The ``signal`` module as the importer sees it.

    The importer installs a Python handler for SIGSEGV. Such a handler never gets to run: the faulting
    instruction is restarted for ever. The default action ends the process, which its owner can report.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)

    def signal(self, number: int, handler: Any) -> Any:
        if number == signal.SIGSEGV:
            return None
        return signal.signal(number, handler)


def let_segfaults_kill() -> None:
    """Must be called once, before any DAG file is imported."""
    python_importer.signal = _SignalsWithoutSegfault()


class PreparsedImporter(PythonDagImporter):  # type: ignore[misc]
    """Answers for one file with what was imported before the fork, and imports any other file as usual."""

    def __init__(self, file: str, result: Any) -> None:
        super().__init__()
        self._file = file
        self._result = result

    def import_file(self, file_path: str | Path, **kwargs: Any) -> Any:
        if str(file_path) == self._file:
            return self._result
        return super().import_file(file_path, **kwargs)


class _AskedAtImport(BaseException):
    """Stops an import that wants its supervisor: not an Exception, so that no user code swallows it."""


class _NoSupervisor:
    """Stands where the supervisor's socket will be and remembers that somebody asked."""

    def __init__(self) -> None:
        self.asked: str | None = None

    def send(self, message: Any) -> Any:
        self.asked = type(message).__name__
        raise _AskedAtImport(self.asked)

    async def asend(self, message: Any) -> Any:
        return self.send(message)


def preparse(bundle_path: Path, bundle_name: str, rel_path: str) -> str | None:
    """Import a file once for the children to come. Returns why that must not be done, or None.

    A file which asks for a Variable or Connection while imported would freeze the answer for all its tasks;
    one that starts threads cannot be forked from; a connection to a database or a service must not be shared;
    one that fails must fail in each child, with its own log.
    """
    from airflow.sdk.execution_time import task_runner

    stand_in = _NoSupervisor()
    task_runner.SUPERVISOR_COMMS = stand_in
    file = str(bundle_path / rel_path)
    before = osproc.connections()
    importer = PythonDagImporter()
    try:
        result = importer.import_file(file, bundle_path=bundle_path, bundle_name=bundle_name, safe_mode=False)
    except BaseException as problem:
        return stand_in.asked or f"{type(problem).__name__}: {problem}"
    finally:
        del task_runner.SUPERVISOR_COMMS
    if stand_in.asked:
        return f"asks for {stand_in.asked} while it is imported"
    if result.errors:
        return f"does not import: {result.errors[0].message}"
    if (threads := osproc.thread_count()) != 1:
        return f"starts threads while it is imported ({threads} are running)"
    if osproc.connections() - before:
        return "opens a connection, pipe or event loop while it is imported"
    get_importer_registry().register(PreparsedImporter(file, result))
    return None
