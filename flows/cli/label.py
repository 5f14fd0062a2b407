"""`dapflow label`: a person answers what runs wait for, whether those runs are alive or not. Test:
pytest tests/flows/judges/test_human_judge.py
"""

import os

from dapflow.flows.cli.options import AllowHost, Lake, PortOrAny, existing, name_hosts
from dapflow.flows.display.screen import Screen
from dapflow.flows.server.environment import prepare


def label(
    *,
    host: str = "127.0.0.1",
    port: PortOrAny = 8700,
    allow_host: AllowHost = (),
    lake: Lake = "lake",
) -> None:
    """Label the pairs of answers that a lake's runs wait for, on a page in the browser; suspended
    runs then go on. Ctrl-C ends it.

    Example: dapflow label --lake ./lake

    Parameters
    ----------
    host
        Address of the page. Any other than loopback needs a password in DAPFLOW_LABEL_PASSWORD.
    port
        Port of the page; another where it is taken.
    """
    prepare(None)
    name_hosts(allow_host)
    from dapflow.storage.labels import latest_labels, waiting
    from dapflow.tasks.judging.judges.desk.server import Desk, serve
    from dapflow.tasks.judging.judges.desk.sitting import Sitting

    console, desk, sat = Screen(), Desk(host=host, port=port), set[str]()
    with existing(lake) as opened, serve(desk):
        while some := [one for one in waiting(opened) if one.version not in sat]:
            wanted = some[0]
            sat.add(wanted.version)
            known = latest_labels(opened, [question.key for question in wanted.questions])
            sitting = Sitting(opened, wanted.questions, wanted.enough, wanted.seed, known)
            if not sitting.enough:
                console.print(
                    f"{sitting.missing} pairs for verdicts@{wanted.version}: {desk.show(sitting)}",
                    highlight=False,
                )
                sitting.wait()
            console.print(_goes_on(wanted.run))
        console.print("Nothing waits for a person." if not sat else "That was all.")


def _goes_on(run: str | None) -> str:
    """Let the run go on, if it is suspended, and say what becomes of it."""
    from dapflow.tasks.judging.judges.desk.suspending import resume

    if run is not None and os.environ.get("PREFECT_API_URL") and resume(run):
        return "Enough: its run was suspended, and goes on."
    return (
        "Enough: a run that waits for it goes on by itself; one that was stopped does when it is "
        "started again, or resumed on its server."
    )
