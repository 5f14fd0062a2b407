"""Completions of the openai engine against the server on loopback, however that behaves."""

from collections.abc import Sequence

from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.model_servers import Behaviour, openai_server

SAMPLING = Sampling(
    n=2, temperature=0.5, top_k=7, min_p=0.1, stop=("END",), system="Be brief.", max_tokens=9
)


def requests(count: int, samples: int = 2) -> list[Request]:
    return [
        Request(
            prompt_id=f"p{n}",
            prompt=f"prompt {n}",
            prompt_token_ids=(1, 2),
            seeds=tuple(range(10 * n, 10 * n + samples)),
        )
        for n in range(count)
    ]


def sample(
    behaviour: Behaviour, some: Sequence[Request], sampling: Sampling = SAMPLING, **settings: object
) -> tuple[dict[tuple[str, int], Completion], str]:
    """Every completion by its row, and the engine's report."""
    with (
        openai_server(behaviour) as url,
        OpenAIEngine(Endpoint(base_url=url, model="toy", **settings)) as engine,
    ):  # type: ignore[arg-type]
        found = list(engine.generate(some, sampling))
        report = engine.report()
    by_row = {(one.prompt_id, one.sample): one for one in found}
    assert len(by_row) == len(found) == sum(len(request.seeds) for request in some)
    return by_row, report
