"""What an iteration learns from, and how: one function for each value of a recipe's `data`. Part of
one iteration (flows/iteration.py).

trained, parts = LEARN["samples"](now)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dapflow.flows.judges import Asked, Panel, Who
from dapflow.flows.labelling import label, scored
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.pairing.answers import accept_answers
from dapflow.tasks.pairing.self_rewarding import evaluation_data, instruction_data
from dapflow.tasks.prompts.preference_answers import (
    load_preference_answers,
    load_preference_prompts,
    pair_with_gold,
)
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.step import rows_if_made
from dapflow.tasks.step.progress import reporter
from dapflow.tasks.training.answers import train_on_answers
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.rounds.online import train_online
from dapflow.tasks.training.train import train

Parts = dict[str, DatasetRef]
"""The datasets of an iteration by name: prompts, completions, verdicts, acceptances, pairs."""


@dataclass(frozen=True, kw_only=True)
class Now:
    """Where the run stands. speaker: who answers the prompts; scorer: who labels, None for nobody;
    earlier: the iterations before.
    """

    recipe: Recipe
    iteration: int
    policy: ModelRef
    initial: ModelRef
    speaker: ModelRef
    prompts: DatasetRef
    held_out: DatasetRef
    scorer: Who | None
    seed: int
    baseline: Callable[[DatasetRef], DatasetRef | None]
    sweep: Callable[[], DatasetRef | None]
    earlier: Sequence[Parts]

    @property
    def start(self) -> ModelRef:
        """The weights that training starts from."""
        return self.policy if self.recipe.init == "previous" else self.initial

    @property
    def reference(self) -> ModelRef:
        """The policy that the loss is taken against."""
        return self.policy if self.recipe.reference == "previous" else self.initial

    def judged(self, prompts: DatasetRef, completions: DatasetRef) -> DatasetRef:
        """Scores of some completions."""
        assert self.scorer is not None, "flows/recipes/recipe.py says so"
        return scored(prompts, completions, self.scorer, self.baseline(prompts), whiten=True)


Learned = tuple[ModelRef, Parts]


def samples(now: Now) -> Learned:
    """The policy's own samples, judged: as pairs, or the accepted ones themselves."""
    r = now.recipe
    assert now.scorer is not None, "flows/recipes/recipe.py says so"
    completions = sample(now.speaker, now.prompts, r.sampling, now.seed, r.sampler, now.sweep())
    if r.trains_on == "answers":
        return _answers(now, now.prompts, [now.prompts], [completions])
    labelled = label(r, now.prompts, completions, now.scorer, now.baseline(now.prompts), now.seed)
    return _pairs(now, {"prompts": now.prompts, "completions": completions, **labelled})


def preferences(now: Now) -> Learned:
    """People's pairs as they are, those that a reward model learns from: offline."""
    source = find_source(now.recipe.preferences.source, PREFERENCES_FILE)
    return _pairs(now, {"pairs": load_preferences(source.name, source.digest, "reward")})


def gold(now: Now) -> Learned:
    """People's chosen answers against the policy's own."""
    r = now.recipe
    prompts, people = _people(now, "chosen")
    completions = sample(now.speaker, prompts, r.sampling, now.seed, r.sampler, None)
    return _pairs(
        now,
        {
            "prompts": prompts,
            "completions": completions,
            "pairs": pair_with_gold(prompts, people, completions),
        },
    )


def seeds(now: Now) -> Learned:
    """People's best answers, then judgements of them that agree with people, imitated whatever the
    loss: the first step of Self-Rewarding. One after the other, for the policy is asked for each
    with a system prompt of its own."""
    r, source = now.recipe, find_source(now.recipe.preferences.source, PREFERENCES_FILE)
    people = load_preferences(source.name, source.digest, "reward")
    instructions = instruction_data(people)
    taught = _imitated(now, now.start, instructions, r.sampling.system)
    judgements = evaluation_data(taught, people, r.judgements, now.seed, r.sampler.own)
    parts = {"pairs": instructions, "judgements": judgements}
    rows = rows_if_made(judgements)
    if rows is not None and all(row["dropped"] for row in rows):
        reporter().said(
            "No judgement of the policy agrees with people, so it learns nothing of judging: people's answers are all its seeds."
        )
        return taught, parts
    return _imitated(now, taught, judgements, r.judgements.sampling.system), parts


def lists(now: Now) -> Learned:
    """People's answers and the policy's own to the same prompts, judged together."""
    r = now.recipe
    prompts, people = _people(now, "both")
    completions = sample(now.speaker, prompts, r.sampling, now.seed, r.sampler, None)
    return _answers(now, prompts, [prompts, prompts], [completions, people])


def rounds(now: Now) -> Learned:
    """A batch of own samples, judged, before every optimiser step: always on-policy."""
    r = now.recipe
    assert now.scorer is not None, "flows/recipes/recipe.py says so"
    if isinstance(now.scorer, Panel | Asked | Human):
        raise UserError(
            "data: `rounds` ask one judge that answers at once: a reward model, a program or an LLM, not several, a person or itself."
        )
    trained = train_online(
        policy=now.start,
        reference=now.reference,
        prompts=now.prompts,
        by=now.scorer,
        baseline=now.baseline(now.prompts),
        sampling=r.sampling,
        rounds=r.rounds,
        lists=r.trains_on == "answers",
        pairing=r.pairing,
        loss=r.loss,
        training=r.training,
        seed=now.seed,
    )
    return trained, {"prompts": now.prompts}


LEARN: dict[str, Callable[[Now], Learned]] = {
    "samples": samples,
    "preferences": preferences,
    "gold": gold,
    "lists": lists,
    "rounds": rounds,
    "seeds": seeds,
}


def _people(now: Now, sides: str) -> tuple[DatasetRef, DatasetRef]:
    """The iteration's slice of the prompts that people have answered, and their answers."""
    r, source = now.recipe, find_source(now.recipe.preferences.source, PREFERENCES_FILE)
    first = (now.iteration - 1) * r.prompts.per_iteration if r.prompts.schedule == "next" else 0
    prompts = load_preference_prompts(
        source.name, source.digest, "reward", first, r.prompts.per_iteration, now.held_out
    )
    return prompts, load_preference_answers(
        prompts, source.name, source.digest, "reward", "chosen" if sides == "chosen" else "both"
    )


def _imitated(now: Now, policy: ModelRef, answers: DatasetRef, system: str | None) -> ModelRef:
    r = now.recipe
    return train(
        policy=policy,
        reference=now.reference,
        pairs=[answers],
        loss=Loss.of("nll"),
        training=r.training,
        system=system,
        chat_template=r.sampling.chat_template,
        seed=now.seed,
    )


def _pairs(now: Now, parts: Parts) -> Learned:
    r = now.recipe
    trained = train(
        policy=now.start,
        reference=now.reference,
        pairs=r.pooled(
            [before["pairs"] for before in now.earlier if "pairs" in before], parts["pairs"]
        ),
        loss=r.loss,
        training=r.training,
        system=r.sampling.system,
        chat_template=r.sampling.chat_template,
        seed=now.seed,
    )
    return trained, parts


def _answers(
    now: Now, prompts: DatasetRef, asked: list[DatasetRef], completions: list[DatasetRef]
) -> Learned:
    """Train on the accepted ones of the pool, all judged by the judge of now; once, or once for
    each threshold of `improve`.
    """
    r = now.recipe
    names = ("prompts", "completions", "people")
    pool = r.pooled([[(before["prompts"], before[name]) for name in names[1:] if name in before] for before in now.earlier],
                    list(zip(asked, completions, strict=True)))  # fmt: skip
    flat = [one for some in pool for one in some]
    verdicts = [now.judged(*one) for one in flat]
    trained, acceptances = now.start, list[DatasetRef]()
    for stage, threshold in enumerate(r.improve.thresholds or [r.acceptance.threshold]):
        acceptance = r.acceptance.model_copy(update={"threshold": threshold})
        rate = r.training.learning_rate * r.improve.learning_rate_share**stage
        acceptances.append(
            accept_answers(
                [one for one, _ in flat], [one for _, one in flat], verdicts, acceptance, now.seed
            )
        )
        trained = train_on_answers(
            policy=trained,
            reference=now.reference,
            answers=acceptances[-1],
            loss=r.loss,
            training=r.training.model_copy(update={"learning_rate": rate}),
            system=r.sampling.system,
            chat_template=r.sampling.chat_template,
            seed=derive_seed(now.seed, stage),
        )
    parts = dict(zip(names[1:], completions, strict=False)) | {
        "prompts": prompts,
        "acceptances": acceptances[-1],
    }
    return trained, parts | {"verdicts": verdicts[-len(completions)]}
