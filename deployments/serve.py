"""Serve `align` as a deployment of a Prefect server: runs are started from its UI, its API or `prefect deployment run`.

prefect server start                                   # in one terminal
PREFECT_API_URL=http://127.0.0.1:4200/api python -m deployments.serve     # in another
prefect deployment run align/align --param recipe=rso --param toy=true
"""

from flows.align import align


def main() -> None:
    """Register the deployment and run what is asked for, until Ctrl-C. The lake is `lake` in this directory unless a run says otherwise."""
    align.serve(name="align", description="Direct alignment from preferences: policy t to policy t+1.", limit=1)


if __name__ == "__main__":
    main()
