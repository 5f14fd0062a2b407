"""What the figures about rejection sampling say of acceptances made by Algorithm 1."""

from random import Random
from typing import Any

import pytest

from dapflow.tasks.figures import Figure
from dapflow.tasks.pairing.acceptance import Acceptance, accept_for_prompt
from dapflow.tasks.pairing.tilting import Candidate, tilting


def figures(count: int, keep: int, beta: float, prompts: int = 60) -> dict[str, Figure]:
    """Of prompts with so many candidates, whose scores have a standard deviation of 3."""
    rng, acceptance = Random(0), Acceptance(keep=keep, beta=beta)
    verdicts: dict[str, list[dict[str, Any]]] = {
        f"p{prompt}": [
            {
                "prompt_id": f"p{prompt}",
                "completion_id": f"c{prompt}-{n}",
                "outcome": "scored",
                "score": rng.gauss(0, 3),
                "text": f"text {n}",
            }
            for n in range(count)
        ]
        for prompt in range(prompts)
    }
    scaled = acceptance.in_scores([row["score"] for row in rows] for rows in verdicts.values())
    candidates = {
        prompt: [
            Candidate(reward=row["reward"], sweep=row["sweep"])
            for row in accept_for_prompt(rows, scaled, Random(prompt))
        ]
        for prompt, rows in verdicts.items()
    }
    return {figure.name: figure for figure in tilting(candidates, acceptance, seed=0)}


def test_many_candidates_for_each_kept_come_near_to_the_tilted_policy_and_few_do_not() -> None:
    near, far = figures(64, 4, 1.0), figures(8, 4, 0.5)
    first, late = near["first_sweep_share"], far["first_sweep_share"]
    assert first.value is not None and first.value > 0.95 and first.note is None
    assert late.value is not None and late.value < 0.5 and "after the first sweep" in str(late.note)
    assert near["tilt_reached"].value == pytest.approx(1.0, abs=0.15)
    assert far["tilt_reached"].value < 0.6  # type: ignore[operator]


def test_a_large_beta_rests_on_all_candidates_and_a_small_one_on_the_best() -> None:
    assert figures(8, 2, 1e6)["effective_candidates"].value == pytest.approx(8.0)
    assert figures(8, 2, 1e-3)["effective_candidates"].value == pytest.approx(1.0, abs=0.05)


def test_figures_that_cannot_be_had_say_why() -> None:
    nothing = {figure.name: figure for figure in tilting({}, Acceptance(), seed=0)}
    assert {figure.value for figure in nothing.values()} == {None}
    assert all(figure.note for figure in nothing.values())
    equal = {"p": [Candidate(reward=1.0, sweep=0)] * 3}
    [way] = [f for f in tilting(equal, Acceptance(), seed=0) if f.name == "tilt_reached"]
    assert (way.value, way.note) == (None, "no candidate scored more than another")
