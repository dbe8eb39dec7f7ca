"""What zygotes need of the operating system: dying with the parent, adopting orphans, killing whole trees."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> None:
    """Descendants that lose their parent become this process's children, so that the last kill finds them."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent goes; a parent gone already means now.

    The signal fires when the forking *thread* ends; a zygote forks from its main and only thread.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(137)


@contextlib.contextmanager
def ending_with(control: socket.socket) -> Iterator[None]:
    """End this process at once if the other end of ``control`` goes meanwhile.

    The imports take seconds in which nobody reads the socket. A thread that does must not be there when
    forking begins, and the parent's death signal follows its threads, so the kernel tells of the socket.
    """
    looking = select.poll()
    looking.register(control, 0)

    def look(*_: object) -> None:
        if any(event & select.POLLHUP for _, event in looking.poll(0)):
            os._exit(137)

    before = signal.signal(signal.SIGIO, look)
    flags = fcntl.fcntl(control, fcntl.F_GETFL)
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(control, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        look()
        yield
    finally:
        fcntl.fcntl(control, fcntl.F_SETFL, flags)
        signal.signal(signal.SIGIO, before)


def thread_count() -> int:
    """Threads of this process, native ones included where the system tells."""
    if sys.platform == "linux":
        return len(list(Path("/proc/self/task").iterdir()))
    import threading

    return threading.active_count()


def connections() -> set[str]:
    """Open sockets, pipes and event loops of this process, where the system tells."""
    found = set()
    if sys.platform == "linux":
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith(("socket:", "pipe:", "anon_inode:")):
                    found.add(target)
    return found


def kill_group(pid: int, number: int) -> None:
    """Signal a child's process group, or the child alone before it has made its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    except PermissionError:
        pass


def descendants(pid: int) -> list[int]:
    """Every living descendant, whatever session or group it has moved to."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def kill_tree(pid: int, number: int) -> None:
    """Signal a child, its process group and all its descendants. Shell operators start their own sessions."""
    below = descendants(pid)
    kill_group(pid, number)
    for other in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(other, number)
