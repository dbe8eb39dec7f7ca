"""Real Airflow in a throw-away home: what Gust is compared with, by the oracle and by the bench.

Everything listens on loopback and on free ports, and every process that is started here is ended here.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rest import Rest

AIRFLOW_VERSION = "3.3.2"
REQUIREMENTS = (
    f"apache-airflow=={AIRFLOW_VERSION}",
    "apache-airflow-task-sdk==1.3.2",
    "apache-airflow-providers-standard==1.21.0",
    "asyncpg",
    "psycopg2-binary",
)
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def free_port() -> int:
    """Return a port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ensure_airflow(work: Path) -> Path:
    """Make, or find again, an environment with Airflow and byte code in `work`; return its python."""
    env = work / f"airflow-{AIRFLOW_VERSION}"
    python = env / "bin" / "python"
    done = env / ".complete"
    if done.exists():
        return python
    shutil.rmtree(env, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    print(f"installing Airflow {AIRFLOW_VERSION} from PyPI into {env}", file=sys.stderr)
    uv = shutil.which("uv")
    if uv:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(env)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(python), "--compile-bytecode"]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--compile"]
    subprocess.run([*install, *REQUIREMENTS], check=True, env=clean_environment())
    done.touch()
    return python


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would change Airflow, and with `extra`."""
    dropped = ("AIRFLOW", "_AIRFLOW", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **(extra or {})}


class Process:
    """A child in its own process group, so that all that it started can be ended with it."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path, user: str | None = None
    ) -> None:
        self.log = log
        self._out: IO[bytes] = log.open("ab")
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            user=user,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group as well."""
        return self._child.pid

    def check(self) -> None:
        """Raise if the process has ended, with the end of what it wrote."""
        code = self._child.poll()
        if code is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._child.args!r} ended with {code}:\n{tail}")

    def stop(self, first: signal.Signals = signal.SIGTERM, patience_s: float = 15) -> None:
        """Ask the process to end, and kill what is left of its group."""
        if self._child.poll() is None:
            self._child.send_signal(first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()
        self._out.close()


class Postgres:
    """A throw-away PostgreSQL server on loopback. It refuses to be root, so root becomes `postgres`."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = dict(settings)
        self._bin = _postgres_bin()
        self._user = "postgres" if os.geteuid() == 0 else None
        self.dir = Path(tempfile.mkdtemp(prefix="oracle-pg-"))
        self.port = free_port()
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(self.dir, entry.pw_uid, entry.pw_gid)
        data = self.dir / "data"
        init = [str(self._bin / "initdb"), "-D", str(data), "-U", "airflow", "-A", "trust", "-E", "UTF8"]
        subprocess.run(init, check=True, user=self._user, cwd=self.dir, stdout=subprocess.DEVNULL)
        self.settings |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        command = [str(self._bin / "postgres"), "-D", str(data), "-p", str(self.port), *options]
        self._process = Process(command, self.dir / "log", os.environ, self.dir, self._user)
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._process.pid

    def url(self, driver: str = "postgresql+psycopg2") -> str:
        """Return the SQLAlchemy URL of the database."""
        return f"{driver}://airflow@127.0.0.1:{self.port}/postgres"

    def _wait_ready(self) -> None:
        probe = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(600):
            self._process.check()
            if subprocess.run(probe, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise TimeoutError("PostgreSQL did not accept connections within 30 s")

    def stop(self) -> None:
        """End the server and remove its files."""
        self._process.stop(signal.SIGINT)
        shutil.rmtree(self.dir, ignore_errors=True)


def _postgres_bin() -> Path:
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not versions:
        raise FileNotFoundError("no PostgreSQL server: install the package `postgresql` or put it on PATH")
    return versions[-1]


class Airflow:
    """Scheduler, DAG processor, triggerer and API server of real Airflow, as a context manager."""

    def __init__(self, python: Path, home: Path, database_url: str, settings: Mapping[str, str]) -> None:
        self.python = python
        self.home = home
        self.port = free_port()
        self.rest = Rest(f"http://127.0.0.1:{self.port}")
        self.processes: list[Process] = []
        home.mkdir(parents=True, exist_ok=True)
        self.env = clean_environment(
            {
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__API__BASE_URL": self.rest.base_url,
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": str(self.port),
                "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
                "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.rest.base_url}/execution/",
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
                "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
                "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
                "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
                "NO_PROXY": "127.0.0.1,localhost",
                "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
                **settings,
            }
        )

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of the `airflow` tool in the chosen environment."""
        return [str(self.python), "-m", "airflow", *arguments]

    def migrate(self) -> None:
        """Create the tables of Airflow's metastore."""
        with (self.home / "migrate.log").open("ab") as log:
            subprocess.run(
                self.command("db", "migrate"), check=True, env=self.env, cwd=self.home, stdout=log, stderr=log
            )

    def start(self, timeout_s: float = 180) -> float:
        """Start all four components and return the seconds until all of them are healthy."""
        start = time.monotonic()
        since = datetime.now(UTC)
        for name, *options in (
            ("api-server",),
            ("scheduler", "--skip-serve-logs"),
            ("dag-processor",),
            ("triggerer", "--skip-serve-logs"),
        ):
            log = self.home / f"{name}.log"
            self.processes.append(Process(self.command(name, *options), log, self.env, self.home))
        try:
            self.rest.wait_healthy(COMPONENTS, timeout_s, since=since)
        except TimeoutError:
            self.check()
            raise
        return time.monotonic() - start

    def check(self) -> None:
        """Raise if a component has ended."""
        for process in self.processes:
            process.check()

    def stop(self) -> None:
        """End all components: the API server last, since the others report to it."""
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()

    def __enter__(self) -> Self:
        self.migrate()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
