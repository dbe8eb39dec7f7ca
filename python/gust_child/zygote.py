"""The zygote: imports once, forks per task.

The base zygote is started by the Rust owner with its control socket as fd 0. On demand it forks *file
zygotes*, which import one DAG file and fork the tasks of that file; each has a control socket of its own.
When that socket ends, the owner is gone, and a zygote kills all that it has started.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gust_child import osproc, warm, wire

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long the base zygote lets file zygotes clear up after themselves when the owner has gone, in seconds.
LAST_GRACE_S = 0.5


class Zygote:
    """One control socket and the children forked at its word."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._nested: set[int] = set()
        self._wake_r, self._wake_w = os.pipe()
        for end in (self._wake_r, self._wake_w):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        osproc.adopt_orphans()

    def announce(self, refused: str | None = None) -> None:
        """Tell the owner that forking may begin, or why it must not."""
        sdk_version, api_version = _versions()
        wire.send(self._control, wire.Ready(os.getpid(), sdk_version, api_version, refused))

    def serve(self) -> NoReturn:
        """Work until the owner goes."""
        # What lives now lives as long as the zygote. A collector that looks at it in a child, or in a zygote
        # below, would unshare every page.
        gc.freeze()
        control = self._control.fileno()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                readable, _, _ = select.select([control, self._wake_r], [], [])
                if self._wake_r in readable:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_r, 4096)
                    self._reap()
                if control in readable:
                    received = wire.receive(self._control)
                    if received is None:
                        break
                    self._obey(*received)
        self._clear_up()
        os._exit(0)

    def _obey(self, command: wire.Command, fds: list[int]) -> None:
        if isinstance(command, wire.Fork):
            self._fork(command, fds)
        elif command.pid in self._children:
            (osproc.kill_tree if command.tree else osproc.kill_group)(command.pid, command.signal)

    def _fork(self, order: wire.Fork, fds: list[int]) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as problem:
            for fd in fds:
                os.close(fd)
            wire.send(self._control, wire.ForkFailed(order.rid, f"fork: {problem}"))
            return
        if pid == 0:
            try:
                self._become_child(order, fds, parent)
            finally:
                # Nothing may ever return into the zygote's own loop.
                os._exit(124)
        for fd in fds:
            os.close(fd)
        self._children.add(pid)
        if order.kind == "file":
            self._nested.add(pid)
        wire.send(self._control, wire.Forked(order.rid, pid))

    def _become_child(self, order: wire.Fork, fds: list[int], parent: int) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        self._control.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
        os.environ.update(order.env)
        _reseed()
        if order.kind == "file":
            _serve_file(order, fds[0])
        osproc.die_with_parent(parent)
        _run(order, fds)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._children:
                continue  # an orphan that this zygote had adopted
            self._children.discard(pid)
            self._nested.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            unit = 1024 if sys.platform == "darwin" else 1
            wire.send(
                self._control,
                wire.Ended(
                    pid=pid,
                    code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    user_s=usage.ru_utime,
                    system_s=usage.ru_stime,
                    max_rss_kb=usage.ru_maxrss // unit,
                ),
            )

    def _clear_up(self) -> None:
        """Leave nobody behind. File zygotes see the same end and clear up below themselves first."""
        for pid in self._children - self._nested:
            osproc.kill_tree(pid, signal.SIGKILL)
        deadline = time.monotonic() + LAST_GRACE_S
        while self._nested and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(-1, os.WNOHANG)
                self._nested.discard(pid)
                if pid:
                    continue
            time.sleep(0.02)
        for pid in self._nested:
            osproc.kill_tree(pid, signal.SIGKILL)
        for pid in osproc.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _reseed() -> None:
    """CPython reseeds ``random`` after a fork by itself; numpy's global generator it does not know."""
    if (numpy := sys.modules.get("numpy")) is not None:
        with contextlib.suppress(Exception):
            numpy.random.seed()


@functools.cache
def _versions() -> tuple[str, str]:
    """The SDK's version and that of its supervisor protocol, without importing what builds the latter."""
    from airflow.sdk import __version__ as sdk_version
    from airflow.sdk.execution_time import schema

    text = (Path(schema.__file__).parent / "schema.json").read_text(encoding="utf-8")
    return str(sdk_version), str(json.loads(text)["api_version"])


def _bundle_environment(order: wire.Fork) -> None:
    """Name the bundle in Airflow's configuration. A child of a file zygote has that (and no path) already."""
    if not order.bundle_path:
        return
    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
        [
            {
                "name": order.bundle_name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": order.bundle_path},
            }
        ]
    )
    warm.use_bundle(Path(order.bundle_path), order.bundle_name)


def _serve_file(order: wire.Fork, control_fd: int) -> NoReturn:
    from gust_child import dagfile

    control = socket.socket(fileno=control_fd)
    try:
        _bundle_environment(order)
        refused = dagfile.preparse(Path(order.bundle_path), order.bundle_name, order.rel_path)
    except BaseException as problem:
        refused = f"{type(problem).__name__}: {problem}"
    zygote = Zygote(control)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        zygote.announce(refused)
        if refused is None:
            zygote.serve()
    os._exit(0)


def _entry(order: wire.Fork) -> Callable[[], None]:
    if order.kind == "task":
        from airflow.sdk.execution_time import task_runner

        return task_runner.main  # type: ignore[no-any-return]
    if order.kind == "callback":
        from airflow.dag_processing import processor

        return processor._parse_file_entrypoint  # type: ignore[no-any-return]
    if order.kind == "parser":
        from gust_child import parser

        return parser.main
    if order.kind == "questions":
        from gust_child import questions

        return questions.main
    if order.kind == "triggerer":
        from gust_child import triggerer

        return triggerer.main
    raise ValueError(f"unknown kind of child: {order.kind}")


def _run(order: wire.Fork, fds: list[int]) -> NoReturn:
    from airflow.sdk.execution_time import supervisor

    requests, stdout, stderr = (socket.socket(fileno=fd) for fd in fds[:3])
    configured = warm.loggers_configured_at_once()
    warm.loud()

    def target() -> None:
        configured()
        _bundle_environment(order)
        _entry(order)()

    supervisor._fork_main(requests, stdout, stderr, fds[3], target)
    os._exit(124)


def main() -> NoReturn:
    """Serve as the base zygote: fd 0 is the control socket."""
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    warm.quiet()
    with osproc.ending_with(control):
        warm.import_all()
        from gust_child import dagfile

    dagfile.let_segfaults_kill()
    # Bundles are immutable and watched: no __pycache__ of ours may appear in them.
    sys.dont_write_bytecode = True
    gc.collect()
    zygote = Zygote(control)
    zygote.announce()
    zygote.serve()
