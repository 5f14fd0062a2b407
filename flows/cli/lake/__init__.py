"""The commands on the lake, a function each."""

from dapflow.flows.cli.lake.change import export, gc, import_, verify
from dapflow.flows.cli.lake.look import datasets, diff, lineage, show, sql

COMMANDS = {
    "datasets": datasets,
    "show": show,
    "lineage": lineage,
    "diff": diff,
    "sql": sql,
    "export": export,
    "import": import_,
    "gc": gc,
    "verify": verify,
}
