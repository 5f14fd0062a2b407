"""One of several processes that train a policy: `python -m dapflow.tasks.training.processes.worker
FOLDER`, started by `dapflow.tasks.training.processes.launch`.

It tells of each step in a line of JSON on its output, and ends when its input does: with the
process that started it.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from dapflow.storage import UserError
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.processes.job import Job
from dapflow.tasks.training.processes.launch import LOGS
from dapflow.tasks.training.processes.ranks import Ranks


def main(folder: Path) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    job = Job.read(folder)
    ranks = Ranks.launched(sharded=job.training.sharding == "full")
    try:
        logs = job.run(folder, _tell if ranks.first else _keep_quiet, ranks)
    except UserError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        os._exit(2)  # the others wait for this one: their launcher ends them
    if ranks.first:
        (folder / LOGS).write_text(json.dumps([asdict(log) for log in logs]))
    sys.stdout.flush()
    # a thread of PyTorch's may outlive the interpreter, and then abort a process whose work is done
    os._exit(0)


def _tell(log: StepLog) -> None:
    print(json.dumps(asdict(log)), flush=True)


def _keep_quiet(log: StepLog) -> None:
    pass


def _end_with_the_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
