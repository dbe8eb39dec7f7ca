"""A small client of Airflow's REST API, enough to trigger runs and read how they ended.

Gust serves the same shapes, so the oracle and the bench speak to both through this one client.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

Json = dict[str, Any]

END_STATES = frozenset({"success", "failed"})

# A proxy of the environment must never stand between this client and a server on loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RestError(Exception):
    """The server answered with an error status: `status` is the number and `detail` its text."""

    def __init__(self, method: str, url: str, status: int, detail: str) -> None:
        super().__init__(f"{method} {url}: {status}: {detail}")
        self.status = status
        self.detail = detail


def _is_healthy(health: Json, name: str, since: datetime | None) -> bool:
    component = health.get(name) or {}
    beat = component.get(f"latest_{name}_heartbeat")
    stale = since is not None and beat is not None and datetime.fromisoformat(beat) < since
    return component.get("status") == "healthy" and not stale


class Rest:
    """One server, spoken to with a token that is fetched when first needed."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._token: str | None = None

    def call(self, method: str, path: str, body: Json | None = None, *, token: bool = True) -> Json:
        """Send one request and return the JSON body; raises RestError on an error status."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {self.token()}"
        url = self.base_url + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with _OPENER.open(request, timeout=60) as answer:
                return cast(Json, json.load(answer))
        except urllib.error.HTTPError as error:
            raise RestError(method, url, error.code, error.read().decode(errors="replace")) from error

    def token(self) -> str:
        """Fetch and keep the access token that the all-admins mode gives to whoever asks."""
        if self._token is None:
            self._token = str(self.call("GET", "/auth/token", token=False)["access_token"])
        return self._token

    def pages(self, path: str, key: str) -> Iterator[Json]:
        """Yield every entry of a paged collection."""
        offset = 0
        joint = "&" if "?" in path else "?"
        while True:
            page = self.call("GET", f"{path}{joint}limit=100&offset={offset}")
            entries = cast(list[Json], page[key])
            yield from entries
            offset += len(entries)
            if not entries or offset >= int(page["total_entries"]):
                return

    def health(self) -> Json:
        """Return the health of each component; raises OSError while nobody listens."""
        return self.call("GET", "/api/v2/monitor/health", token=False)

    def wait_healthy(
        self,
        components: tuple[str, ...],
        timeout_s: float,
        poll_s: float = 0.1,
        since: datetime | None = None,
    ) -> float:
        """Wait until all named components are healthy and return the seconds which that took.

        A heartbeat from before `since` is not believed: it is that of an earlier process.
        """
        start = time.monotonic()
        seen: object = "nobody listens yet"
        while time.monotonic() - start < timeout_s:
            try:
                health = self.health()
                if all(_is_healthy(health, name, since) for name in components):
                    return time.monotonic() - start
                seen = health
            except (OSError, RestError) as error:
                seen = error
            time.sleep(poll_s)
        raise TimeoutError(f"{self.base_url} was not healthy after {timeout_s} s: {seen}")

    def unpause(self, dag_id: str) -> None:
        """Let runs of a DAG proceed."""
        self.call("PATCH", f"/api/v2/dags/{quote(dag_id)}?update_mask=is_paused", {"is_paused": False})

    def trigger(self, dag_id: str, conf: Json | None = None) -> str:
        """Start a run by hand, without a logical date, and return its id."""
        body = {"logical_date": None, "conf": conf or {}}
        return str(self.call("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> Json:
        """Return one run."""
        return self.call("GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}")

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of every task instance, keyed "task" or "task[map_index]"."""
        path = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        states: dict[str, str | None] = {}
        for ti in self.pages(path, "task_instances"):
            index = int(ti["map_index"])
            states[ti["task_id"] if index < 0 else f"{ti['task_id']}[{index}]"] = ti["state"]
        return dict(sorted(states.items()))
