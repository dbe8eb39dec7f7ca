"""The table that the bench prints."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from measure import CASES, Side, median


def machine() -> str:
    """Describe this machine in one line."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    total_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return f"{cores} cores ({model}), {total_gb:.0f} GB of memory, Linux {platform.release()}"


def rows(side: Side) -> list[tuple[str, float, str]]:
    """Return the lines of one side: title, value, unit. A smaller value is better unless it is a rate."""
    lines: list[tuple[str, float, str]] = []
    for case in CASES:
        times = side.times[case.dag_id]
        run_s = median(times.run_s)
        lines.append((case.title, run_s, "s"))
        lines.append((f"{case.title}, from the trigger", median(times.wall_s), "s"))
        if case.per == "tasks/s":
            lines.append((f"{case.title}: rate", case.tasks / run_s, "tasks/s"))
        elif case.per == "ms/hop":
            lines.append((f"{case.title}: a hop", 1000 * run_s / (case.tasks - 1), "ms"))
    lines.append(("cold start, command to healthy", median(side.cold_start_s), "s"))
    lines.append(("idle memory, control plane", side.idle_mb["control"], "MB"))
    lines.append(("idle memory, Python children", side.idle_mb["python"], "MB"))
    lines.append(("idle memory, database server", side.idle_mb["database"], "MB"))
    lines.append(("idle memory, all", sum(side.idle_mb.values()), "MB"))
    lines.append(("memory after the runs, all", sum(side.after_mb.values()), "MB"))
    return lines


def table(sides: list[Side], rounds: int) -> str:
    """Return the whole report as Markdown."""
    text = [
        f"# Bench of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"Machine: {machine()}. Medians of {rounds} runs.",
        "Runs are timed from start to end as the server records them; memory is proportional set size.",
        "",
    ]
    text += [f"- **{side.name}**: {'; '.join(side.facts)}." for side in sides]
    ratio = len(sides) == 2
    names = [side.name for side in sides]
    text += ["", "| | " + " | ".join([*names, *(["Gust is better by"] if ratio else [])]) + " |"]
    text.append("|---" + "|---:" * (len(names) + ratio) + "|")
    for line in zip(*(rows(side) for side in sides), strict=True):
        title, _, unit = line[0]
        values = [value for _, value, _ in line]
        cells = [_cell(value, unit) for value in values]
        if ratio:
            cells.append(_ratio(values[0], values[1], higher_is_better=unit == "tasks/s"))
        text.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def _cell(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _ratio(airflow: float, gust: float, *, higher_is_better: bool) -> str:
    over, under = (gust, airflow) if higher_is_better else (airflow, gust)
    return f"{over / under:.1f} ×" if under > 0 and over > 0 else "–"
