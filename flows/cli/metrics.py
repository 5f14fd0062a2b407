"""`dapflow metrics`: what the lake holds and what it took, for Prometheus. Read from the lake, so
no run has to be going on.

    dapflow metrics > /var/lib/node_exporter/dapflow.prom        # for node_exporter's textfile collector
    dapflow metrics --port 9464                                  # or an endpoint to scrape
Needs prometheus-client (pip install 'dapflow[metrics]'). Test: pytest
tests/flows/cli/test_metrics.py
"""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dapflow.flows.cli.options import AllowHost, Lake, PortOrAny, listening, name_hosts
from dapflow.flows.report.find import iterations, own_versions
from dapflow.storage.errors import UserError
from dapflow.storage.lake import Lake as OpenLake
from dapflow.storage.location import locate
from dapflow.tasks.servers.door import Door

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_OF_STEP = ("recipe", "step", "activity")
# name, help, labels, SQL with a column for each label and `value`; `made` is a row for each version
# with the recipe of the run that made it, and what its step does: empty where older software made
# it
_TOTALS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "dapflow_rows",
        "Rows that steps have written.",
        _OF_STEP,
        "SELECT recipe, step, activity, sum(rows) AS value FROM made GROUP BY ALL",
    ),
    (
        "dapflow_step_seconds",
        "Wall seconds of steps, all attempts.",
        _OF_STEP,
        "SELECT recipe, step, activity, sum(seconds) AS value FROM made GROUP BY ALL",
    ),
    (
        "dapflow_judge_calls",
        "Calls of judges over the network.",
        (*_OF_STEP, "model", "outcome"),
        "SELECT recipe, step, activity, model, CASE WHEN error IS NULL THEN 'answered' ELSE "
        "'failed' END AS outcome, count(*) AS value"
        " FROM calls JOIN made USING (version) GROUP BY ALL",
    ),
    (
        "dapflow_judge_tokens",
        "Tokens of these calls.",
        (*_OF_STEP, "model", "direction"),
        "UNPIVOT (SELECT recipe, step, activity, model, sum(tokens_in)::DOUBLE AS 'in', "
        "sum(tokens_out)::DOUBLE AS 'out'"
        " FROM calls JOIN made USING (version) GROUP BY ALL) ON 'in', 'out' INTO NAME direction "
        "VALUE value",
    ),
    (
        "dapflow_judge_usd",
        "Dollars of these calls, where the price is known.",
        (*_OF_STEP, "model"),
        "SELECT recipe, step, activity, model, sum(usd) AS value FROM calls JOIN made USING "
        "(version) WHERE usd IS NOT NULL GROUP BY ALL",
    ),
)
_STATES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "dapflow_runs",
        "Runs by how they ended.",
        ("recipe", "state"),
        "SELECT recipe, state, count(*) AS value FROM runs GROUP BY ALL",
    ),
    (
        "dapflow_run_ended_timestamp_seconds",
        "When a run was last done.",
        ("recipe",),
        "SELECT recipe, epoch(max(ended_at)) AS value FROM runs WHERE state = 'done' GROUP BY ALL",
    ),
    (
        "dapflow_figure",
        "Figures of the newest iteration of a recipe, as in its report.",
        ("recipe", "name"),
        "SELECT recipe, name, value FROM metrics JOIN (SELECT recipe, arg_max(metrics, "
        "i.ended_at) AS version FROM iterations i"
        " JOIN runs USING (run) GROUP BY ALL) USING (version) WHERE step IS NULL AND value IS NOT "
        "NULL",
    ),
)
_MADE = (
    "WITH made AS (SELECT v.version, v.step, coalesce(v.activity, '') AS activity, v.rows, "
    "v.seconds,"
    " coalesce(r.recipe, '') AS recipe FROM versions v"
    " LEFT JOIN runs r ON r.run = v.flow_run_id WHERE v.state <> 'open') "
)


def metrics(
    *,
    port: PortOrAny | None = None,
    host: str = "127.0.0.1",
    allow_host: AllowHost = (),
    lake: Lake = "lake",
) -> None:
    """Print what the lake holds and what it took as metrics of Prometheus; with --port, serve them
    until Ctrl-C.

    Example: dapflow metrics --port 9464

    Parameters
    ----------
    port
        Serve http://HOST:PORT/metrics, each time as the lake is then.
    host
        Another address to listen on. Whoever reaches it reads figures and names of recipes and judges, and no texts.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest, make_asgi_app
    except ImportError as error:
        raise UserError(
            "dapflow metrics needs a package: pip install 'dapflow[metrics]'."
        ) from error
    registry = CollectorRegistry()
    OpenLake(lake, read_only=True).close()  # says at once what is wrong with it
    registry.register(Collector(lake))  # type: ignore[arg-type]
    if port is None:
        print(generate_latest(registry).decode(), end="")
        return
    import uvicorn

    name_hosts(allow_host)
    with listening(host, port):
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    print(
        f"The metrics of {locate(lake).address}: http://{host}:{listener.getsockname()[1]}/metrics",
        flush=True,
    )
    settings = uvicorn.Config(
        Door(make_asgi_app(registry), host), lifespan="off", ws="none", log_level="critical"
    )
    uvicorn.Server(settings).run([listener])


class Collector:
    """Reads the lake anew each time it is asked; a version whose tokens have been counted is not
    counted again.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._tokens: dict[str, int] = {}
        self._turn = threading.Lock()

    def describe(self) -> list["Metric"]:
        """Nothing: to be registered, it need not read the lake."""
        return []

    def collect(self) -> Iterator["Metric"]:
        """All metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._turn, OpenLake(self._address, read_only=True) as lake:
            made = lake.rows(f"{_MADE} FROM made")
            for family, some in ((CounterMetricFamily, _TOTALS), (GaugeMetricFamily, _STATES)):
                for name, told, labels, query in some:
                    metric = family(name, told, labels=labels)
                    for row in lake.rows(_MADE + query if family is CounterMetricFamily else query):
                        metric.add_metric([row[label] for label in labels], row["value"] or 0)
                    yield metric
            yield _counted(
                CounterMetricFamily(
                    "dapflow_sampled_tokens", "Tokens that were sampled.", labels=_OF_STEP
                ),
                self._sampled(lake, made),
            )
            steps = GaugeMetricFamily(
                "dapflow_steps",
                "Steps by what became of them: made, reused by a later run, unfinished.",
                labels=(*_OF_STEP, "outcome"),
            )
            yield _counted(steps, _outcomes(lake, made))
            sizes = Counter[tuple[str, ...]]()
            for (table, _), files in lake.catalogue().files.items():
                sizes[(table,)] += sum(file.bytes for file in files)
            yield _counted(
                GaugeMetricFamily(
                    "dapflow_lake_bytes", "Bytes of Parquet by noun.", labels=("kind",)
                ),
                sizes,
            )

    def _sampled(self, lake: OpenLake, made: list[dict[str, Any]]) -> Counter[tuple[str, ...]]:
        """From the footers of the files: their rows are not read. An answer without a token counts
        as one.
        """
        catalogue, counted = lake.catalogue(), Counter[tuple[str, ...]]()
        for row in made:
            if files := catalogue.files_of("completions", row["version"]):
                if row["version"] not in self._tokens:
                    query = (
                        "SELECT sum(num_values)::BIGINT AS n FROM parquet_metadata(?) WHERE "
                        "path_in_schema LIKE 'token_ids%'"
                    )
                    self._tokens[row["version"]] = (
                        lake.rows(query, [[file.path for file in files]])[0]["n"] or 0
                    )
                labels = tuple(row[label] for label in _OF_STEP)
                counted[labels] += self._tokens[row["version"]]
        return counted


def _outcomes(lake: OpenLake, made: list[dict[str, Any]]) -> Counter[tuple[str, ...]]:
    """How many versions were made, how often a run found one that another had made, and how many
    are not complete.
    """
    catalogue, counted = (
        lake.catalogue(),
        Counter((*(row[label] for label in _OF_STEP), "made") for row in made),
    )
    makers = {
        row["version"]: row["flow_run_id"]
        for row in lake.rows("SELECT version, flow_run_id FROM versions")
    }
    seen = set[tuple[str, str]]()
    for found in iterations(lake):
        assert found.run is not None
        run = found.run["run"]
        for version in own_versions(catalogue, found):
            if makers.get(version) != run and (run, version) not in seen:
                seen.add((run, version))
                info = catalogue.versions[version]
                counted[found.recipe, info.step, info.activity or "", "reused"] += 1
    counted.update(
        ("", info.step, info.activity or "", "unfinished")
        for info in catalogue.versions.values()
        if info.state == "open"
    )
    return counted


def _counted(metric: Any, counted: Counter[tuple[str, ...]]) -> Any:
    for labels, value in sorted(counted.items()):
        metric.add_metric(list(labels), value)
    return metric
