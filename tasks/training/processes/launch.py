"""Training in several processes: `accelerate launch` starts them, they read a job folder and tell
of each step on their output.

Test: pytest tests/tasks/training/processes/test_processes.py
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.utils import DistributedType

from dapflow.storage import UserError
from dapflow.storage.processors import processors
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.processes.job import Job
from dapflow.tasks.training.settings import Training

_LOG = "processes.log"
# the launcher's own have dots
_ERROR = re.compile(r"^\w+(?:Error|Exception|Interrupt): .*$", re.MULTILINE)
LOGS = "logs.json"


def with_processes(training: Training) -> Training:
    """The settings with the number of processes and the sharding that they, or else the user's
    `accelerate config`, ask for.
    """
    if training.processes is not None:
        return training
    if not Path(default_config_file).is_file():
        return training.model_copy(update={"processes": 1})
    config: Any = load_config_from_file(None)
    if (config.num_machines or 1) > 1:
        raise UserError(
            "`accelerate config` names several machines; a step trains on one: "
            "set training.processes."
        )
    sharded = config.distributed_type == DistributedType.FSDP
    return training.model_copy(
        update={
            "processes": max(1, config.num_processes),
            "sharding": "full" if sharded else training.sharding,
        }
    )


def launch(job: Job, folder: Path, on_step: Callable[[StepLog], None]) -> list[StepLog]:
    """`job.run` in so many processes as its settings say.

    They end when this process ends, however it ends. Raises UserError with what one of them
    refused, or where their log is.
    """
    processes = job.training.processes
    assert processes is not None, "see with_processes"
    job.write(folder)
    flags = f"--multi_gpu --num_machines 1 --num_processes {processes} --main_process_port 0"
    flags += (
        " --mixed_precision no --dynamo_backend no"  # the precision is the trainer's own affair
    )
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *flags.split(),
        "-m",
        "dapflow.tasks.training.processes.worker",
        str(folder),
    ]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    if not torch.cuda.is_available():
        environment |= {
            "OMP_NUM_THREADS": str(max(1, processors() // processes)),
            "GLOO_SOCKET_IFNAME": _loopback(),
        }
    refused = None
    with (
        (folder / _LOG).open("w") as log_file,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            env=environment,
            start_new_session=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            for line in child.stdout:
                message = json.loads(line) if line.startswith("{") else {}
                refused = message.get("refused", refused)
                if "step" in message:
                    on_step(StepLog.read(message))
        finally:
            child.stdin.close()  # the sign for them to end
    if refused is not None:
        raise UserError(refused)
    if child.returncode != 0:
        log = (folder / _LOG).read_text()
        errors = _ERROR.findall(log) or [f"exit status {child.returncode}"]
        raise RuntimeError(
            f"One of the {processes} training processes failed ({errors[-1]}): "
            f"{folder / _LOG} has all it said."
        )
    return [StepLog.read(log) for log in json.loads((folder / LOGS).read_text())]


def _loopback() -> str:
    return "lo0" if sys.platform == "darwin" else "lo"
