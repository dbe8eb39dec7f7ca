"""How much memory a process and all that it started hold, read from /proc."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def family(roots: Iterable[int]) -> set[int]:
    """Return the roots and all their living descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    rest = list(roots)
    while rest:
        pid = rest.pop()
        if pid not in found:
            found.add(pid)
            rest.extend(children.get(pid, []))
    return found


def _parent(entry: Path) -> int | None:
    try:
        # The command name, between parentheses, may itself hold spaces and parentheses.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def pss_mb(pid: int) -> float:
    """Return the proportional set size of one process in MB (10^6 bytes), 0 if it is gone."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    kib = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kib * 1024 / 1e6


def program(pid: int) -> str:
    """Return the file name of the program that a process runs, or an empty string if it is gone."""
    try:
        return (PROC / str(pid) / "exe").readlink().name
    except OSError:
        return ""


def tree_mb(roots: Iterable[int]) -> dict[str, float]:
    """Return the memory in MB of all processes below `roots`, summed by program."""
    sums: dict[str, float] = {}
    for pid in family(roots):
        name = program(pid)
        if name:
            sums[name] = sums.get(name, 0.0) + pss_mb(pid)
    return sums
