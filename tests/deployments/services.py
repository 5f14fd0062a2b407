"""A Prefect server, workers and a webhook as processes of their own on loopback, to be killed and
started again; ended by the test.
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.processes import free_port

SMALL = ("prompts.per_iteration=4", "prompts.held_out=6", "sampling.n=3", "sampling.max_tokens=6")
PATIENCE = 3600  # seconds until something is taken never to happen


class Services:
    """`dapflow ui` and `dapflow worker` on a lake, and every other command beside them. home: of
    Prefect; environment: added to all.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, lake: str | None = None
    ) -> None:
        self.folder, self.port, self.lake = folder, free_port(), lake or str(folder / "lake")
        self.url = f"http://127.0.0.1:{self.port}/api"
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT") and name != "PYTHONSAFEPATH"
        }
        here = {
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": self.url,
            "DAPFLOW_LAKE": self.lake,
        }
        self.environment = (
            clean | here | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | (environment or {})
        )
        self.processes: dict[str, psutil.Popen] = {}

    def start_server(self) -> None:
        """Start the server, or start it again; returns once it answers."""
        self._start("server", "ui", "--port", str(self.port))
        wait(
            "the server answers",
            lambda: self._answers() or self.processes["server"].poll() is not None,
        )

    def start_worker(self, name: str = "worker") -> None:
        """Start a worker."""
        self._start(name, "worker")

    def dapflow(self, *arguments: str) -> str:
        """Standard output of a command. Fails with what it says when it does."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def api(self, path: str, body: Any = None) -> Any:
        """What the server's API says; a body is posted. Asked once, as by a browser: what a locked
        SQLite refuses, the server itself repeats.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", data, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def start_night(self, deployment: str = "night/rso", **parameters: Any) -> str:
        """Ask for a night, as the UI's form does, with these parameters in place of the
        deployment's. Returns the id of its run.
        """
        found = self.api(f"deployments/name/{deployment}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": found["parameters"] | parameters}
        return str(self.api(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        """The state of a run."""
        return self.api(f"flow_runs/{run}")["state"]

    def wait_for(self, run: str, *names: str) -> dict[str, Any]:
        """The state of a run once its name is one of these."""
        wait(
            f"{run} is {' or '.join(names)}",
            lambda: self.state(run)["name"] in names,
            lambda: str(self.state(run)),
        )
        return self.state(run)

    def iterations(self, run: str) -> list[str]:
        """The iterations of a night, the one begun last at the end."""
        body = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}, "sort": "START_TIME_ASC"}
        return [one["id"] for one in self.api("flow_runs/filter", body)]

    def tasks(self, run: str) -> list[dict[str, Any]]:
        """The task runs of a night's iteration, of all its attempts, in the order in which they
        were begun.
        """
        children = self.iterations(run)
        body = {"flow_runs": {"id": {"any_": children}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.api("task_runs/filter", body) if children else []

    def attempts(self, run: str) -> list[list[tuple[str, str | None]]]:
        """Name and state of the steps that a night's iteration has begun, attempt by attempt; None:
        the server has noted none down yet.
        """
        found = defaultdict[tuple[str, int], list[tuple[str, str | None]]](list)
        for one in self.tasks(
            run
        ):  # an iteration that was set to Crashed is not tried again: the night begins another
            if not one["name"].startswith("shard "):
                found[one["flow_run_id"], one["flow_run_run_count"]].append(
                    (one["name"], one["state_name"])
                )
        return list(found.values())

    def begun(self, run: str, step: str) -> bool:
        """Whether a night has begun a step, in whichever attempt."""
        return any(one["name"].startswith(step) for one in self.tasks(run))

    def process_of(self, run: str | None = None) -> psutil.Process | None:
        """The process that works on a run (None: on any)."""
        for process in psutil.process_iter(["pid"]):
            try:
                found = process.environ()
            except psutil.Error:
                continue
            mine = (
                found.get("PREFECT_HOME") == self.environment["PREFECT_HOME"]
                and "PREFECT__FLOW_RUN_ID" in found
            )
            if (
                mine
                and run in (None, found["PREFECT__FLOW_RUN_ID"])
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                return process
        return None

    def kill(self, name: str) -> None:
        """kill -9, and what the process has started stays."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes.pop(name).wait(PATIENCE)

    def others(self) -> list[psutil.Process]:
        """Our processes beside server and workers: whoever is left when all is done is an orphan."""
        known = {one.pid for one in self.processes.values()}
        found = list[psutil.Process]()
        for process in psutil.process_iter(["pid"]):
            try:
                if (
                    process.environ().get("PREFECT_HOME") == self.environment["PREFECT_HOME"]
                    and process.pid not in known
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def log(self, name: str) -> str:
        """What a process has printed."""
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        """End all that was started, and what that has left."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(60)
            except psutil.TimeoutExpired:
                process.kill()
        for process in self.others():
            process.kill()

    def command(self, *arguments: str) -> list[str]:
        """The words of a command, for one that is to be killed; it takes `environment`."""
        return [sys.executable, "-m", "dapflow.flows.cli.main", *arguments]

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = psutil.Popen(
                self.command(*arguments), env=self.environment, stdout=log, stderr=log
            )

    def _answers(self) -> bool:
        try:
            return bool(self.api("health"))
        except (OSError, urllib.error.URLError):
            return False


@contextmanager
def services(
    folder: Path,
    environment: dict[str, str] | None = None,
    lake: str | None = None,
    kind: type[Services] = Services,
) -> Iterator[Services]:
    """A server and one worker."""
    found = kind(folder, environment, lake)
    try:
        found.start_server()
        found.start_worker()
        yield found
    finally:
        found.end()


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The URL of a webhook on loopback, and what has been sent to it so far."""
    said: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret-path-of-the-hook", said
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait(
    what: str,
    happened: Callable[[], Any],
    instead: Callable[[], str] = lambda: "",
    every: float = 0.2,
) -> None:
    """Until it has happened; looked at every so many seconds."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until, f"not within {PATIENCE} seconds: {what} {instead()}"
        time.sleep(every)


def settings(*all_of: Sequence[str]) -> list[str]:
    """As options of a command."""
    return [word for some in all_of for setting in some for word in ("--set", setting)]


def check_resumed(attempts: Sequence[Sequence[tuple[str, str | None]]]) -> None:
    """Each attempt walks the same steps, and has found done what the one before it had done."""
    assert len(attempts) > 1
    for earlier, later in pairwise(attempts):
        assert [name for name, _ in later[: len(earlier)]] == [name for name, _ in earlier]
        done = [
            place for place, (_, state) in enumerate(earlier) if state in ("Completed", "Cached")
        ]
        assert done, "nothing had been done"
        assert [later[place][1] for place in done] == ["Cached"] * len(done), (earlier, later)
