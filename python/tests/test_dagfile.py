"""What may be imported before the fork."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest

from gust_child import dagfile, parser

DAG = """
from airflow.sdk import DAG
with DAG("one", schedule=None):
    pass
"""


def preparse(folder: Path, text: str) -> str | None:
    (folder / "one.py").write_text(dedent(text))
    return dagfile.preparse(folder, "lab", "one.py")


def test_a_plain_file_may_be_shared(tmp_path: Path) -> None:
    assert preparse(tmp_path, DAG) is None


@pytest.mark.parametrize(
    ("top", "why"),
    [
        ("from airflow.sdk import Variable; Variable.get('x', default=1)", "GetVariable"),
        ("from airflow.sdk import Connection; Connection.get('x')", "GetConnection"),
        ("raise RuntimeError('broken')", "broken"),
        ("def (", "invalid syntax"),
        ("raise SystemExit(3)", "does not import"),
    ],
)
def test_a_file_that_asks_or_fails_may_not(tmp_path: Path, top: str, why: str) -> None:
    refused = preparse(tmp_path, top + DAG)
    assert refused is not None
    assert why in refused


def test_a_file_that_swallows_the_refusal_may_not(tmp_path: Path) -> None:
    text = """
    from airflow.sdk import Variable
    try:
        Variable.get("x")
    except BaseException:
        pass
    """
    assert "GetVariable" in (preparse(tmp_path, dedent(text) + DAG) or "")


def test_a_file_that_starts_a_thread_may_not(tmp_path: Path) -> None:
    text = (
        "import threading; DONE = threading.Event(); threading.Thread(name='lab', target=DONE.wait).start()"
    )
    refused = preparse(tmp_path, text + DAG)
    (module,) = (
        module for name, module in sys.modules.items() if name.endswith("_one") and hasattr(module, "DONE")
    )
    module.DONE.set()
    for thread in threading.enumerate():
        if thread.name == "lab":
            thread.join()
    assert "threads" in (refused or "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is open")
def test_a_file_that_opens_a_connection_may_not(tmp_path: Path) -> None:
    refused = preparse(tmp_path, "import socket; KEPT = socket.socketpair()" + DAG)
    assert "connection" in (refused or "")


def test_files_are_listed_as_airflow_would(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "sub/c.py", "skipped/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(DAG)
    (tmp_path / "helper.py").write_text("VALUE = 1")
    (tmp_path / ".airflowignore").write_text("skipped/\n")
    assert parser.list_files(tmp_path, safe_mode=True) == ["a.py", "b.py", "sub/c.py"]
    assert parser.list_files(tmp_path, safe_mode=False) == ["a.py", "b.py", "helper.py", "sub/c.py"]


def test_with_a_dags_folder_only_that_is_listed(tmp_path: Path) -> None:
    for name in ("dags/a.py", "plugins/p.py", "include/i.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(DAG)
    assert parser.list_files(tmp_path, safe_mode=True) == ["dags/a.py"]


def test_a_parsed_file_holds_its_dags_as_text(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(DAG)
    told = parser.parse_file(tmp_path, "lab", "one.py", safe_mode=True)
    assert [dag["dag_id"] for dag in told["dags"]] == ["one"]
    assert told["import_errors"] == {}
