"""`kill -9` in the middle of judging: by the server's own count, at most what was under way is
asked again.

python -m tests.tasks.judging.asking.test_kill            # 20 kills, 2,000 comparisons
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dapflow.storage import Lake
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.judging import matches, prefers_good
from tests.helpers.lakes import empty_lake
from tests.helpers.model_servers import Behaviour, openai_server
from tests.helpers.writers import FORKED

CONCURRENCY = 16
FORKED.set_forkserver_preload(
    ["tests.helpers.lakes", "dapflow.storage.files", "tests.helpers.judging"]
)


@dataclass
class Outcome:
    """What the server counted."""

    kills: int
    asked: int
    again: int  # calls beyond one for each question
    under_way: int  # calls that were under way at a kill, all kills together


def judge(address: str, url: str, count: int) -> Counter[str]:
    """Compare all; outcomes."""
    by = LLM(endpoint=Endpoint(base_url=url, model="judge", concurrency=CONCURRENCY))
    with Lake(address) as lake, llm_judge(lake, "v1", by) as panel:
        return Counter(verdict.outcome for verdict in panel.compare(matches(count)))


def check(kills: int, count: int, seed: int, seconds: float) -> Outcome:
    """Kill a judging process again and again, each after a share of the calls that are left; then
    let one end.
    """
    draw, behaviour, under_way, done = (
        random.Random(seed),
        Behaviour(reply=prefers_good, seconds=seconds),
        0,
        0,
    )
    with tempfile.TemporaryDirectory() as address, openai_server(behaviour) as url:
        empty_lake(Path(address))
        while done < kills:
            process = FORKED.Process(target=judge, args=(address, url, count))
            process.start()
            share = (2 * count - len(behaviour.answered)) / (kills - done + 1)
            wanted = len(behaviour.asked) + draw.uniform(0.2, 1.0) * share
            while process.is_alive() and len(behaviour.asked) < wanted:
                time.sleep(0.001)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
            under_way += CONCURRENCY
            done += 1
        assert judge(address, url, count) == {"win": count}
        with Lake(address, read_only=True) as lake:
            [kept] = lake.rows(
                "SELECT count(*) AS calls, count(DISTINCT key) AS keys, count(*) FILTER (error IS NULL) AS answers FROM calls"
            )
    time.sleep(0.1)
    assert kept["keys"] == 2 * count
    assert kept["answers"] == 2 * count, "no answer that was on the record was paid for again"
    again = Counter(str(body["messages"]) for body in behaviour.asked).total() - 2 * count
    assert again <= under_way
    assert kept["calls"] >= len(behaviour.asked)  # whatever the server has seen is on the record
    return Outcome(kills, len(behaviour.asked), again, under_way)


def test_a_killed_judge_asks_again_at_most_what_was_under_way() -> None:
    outcome = check(kills=2, count=40, seed=0, seconds=0.05)
    assert outcome.asked == 80 + outcome.again


def main() -> None:
    """The full count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    found = check(arguments.kills, arguments.comparisons, arguments.seed, seconds=0.1)
    print(
        f"{found.kills} judges killed in {time.monotonic() - started:.0f} s: {found.asked} calls for {2 * arguments.comparisons} questions, "
        f"{found.again} again, {found.under_way} at most were under way",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
