"""What an iteration learns from, and how: one function for each value of a recipe's `data`. Part of
one iteration (flows/iteration.py).

trained, data = LEARN["samples"](here, given, judge)
"""

from collections.abc import Callable
from dataclasses import replace

from dapflow.flows.judging.labelling import label, scored
from dapflow.flows.judging.seating import baseline_of
from dapflow.flows.prompting import Given, slice_of
from dapflow.flows.recipes.recipe import Data
from dapflow.flows.standing import IterationData, Standing
from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.judging.spec import Seated
from dapflow.tasks.models.policy import register_endpoint
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
from dapflow.tasks.sampling.sweep import choose_temperature
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.step import rows_if_made
from dapflow.tasks.step.progress import reporter
from dapflow.tasks.training.answers import train_on_answers
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.rounds.online import train_online
from dapflow.tasks.training.train import train

Learned = tuple[ModelRef, IterationData]
"""The trained policy, and the datasets it was made from."""


def samples(here: Standing, given: Given, judge: Seated | None) -> Learned:
    """The policy's own samples, judged: as pairs, or the accepted completions themselves."""
    r = here.recipe
    assert judge is not None, "flows/recipes/recipe.py says so"
    speaker = _speaker(here)
    sweep = _sweep(here, speaker, judge)
    completions = sample(speaker, given.prompts, r.sampling, here.seed, r.sampler, sweep)
    data = IterationData(prompts=given.prompts, completions=completions)
    if r.trains_on == "answers":
        return _answers(here, data, judge)
    baseline = baseline_of(here, given.prompts, r.labels_by)
    return _pairs(here, label(r, given.prompts, completions, judge, baseline, here.seed))


def preferences(here: Standing, given: Given, judge: Seated | None) -> Learned:
    """People's pairs as they are, those that a reward model learns from: offline."""
    del given, judge
    source = find_source(here.recipe.preferences.source, PREFERENCES_FILE)
    return _pairs(here, IterationData(pairs=load_preferences(source.name, source.digest, "reward")))


def gold(here: Standing, given: Given, judge: Seated | None) -> Learned:
    """People's chosen answers against the policy's own."""
    del judge
    r = here.recipe
    prompts, people = _people(here, given, "chosen")
    completions = sample(_speaker(here), prompts, r.sampling, here.seed, r.sampler, None)
    pairs = pair_with_gold(prompts, people, completions)
    return _pairs(here, IterationData(prompts=prompts, completions=completions, pairs=pairs))


def lists(here: Standing, given: Given, judge: Seated | None) -> Learned:
    """People's answers and the policy's own to the same prompts, judged together."""
    r = here.recipe
    assert judge is not None, "flows/recipes/recipe.py says so"
    prompts, people = _people(here, given, "both")
    completions = sample(_speaker(here), prompts, r.sampling, here.seed, r.sampler, None)
    data = IterationData(prompts=prompts, completions=completions, people=people)
    return _answers(here, data, judge)


def seeds(here: Standing, given: Given, judge: Seated | None) -> Learned:
    """People's best answers, then judgements of them that agree with people, imitated whatever the
    loss: the first step of Self-Rewarding. One after the other, for the policy is asked for each
    with a system prompt of its own."""
    del given, judge
    r, source = here.recipe, find_source(here.recipe.preferences.source, PREFERENCES_FILE)
    people = load_preferences(source.name, source.digest, "reward")
    instructions = instruction_data(people)
    taught = _imitated(here, here.start, instructions, r.sampling.system)
    judgements = evaluation_data(taught, people, r.judgements, here.seed, r.sampler.own)
    data = IterationData(pairs=instructions, judgements=judgements)
    rows = rows_if_made(judgements)
    if rows is not None and all(row["dropped"] for row in rows):
        reporter().said(
            "No judgement of the policy agrees with people, so it learns nothing of judging: "
            "people's answers are all its seeds."
        )
        return taught, data
    return _imitated(here, taught, judgements, r.judgements.sampling.system), data


def rounds(here: Standing, given: Given, judge: Seated | None) -> Learned:
    """A batch of own samples, judged, before every optimiser step: always on-policy."""
    r = here.recipe
    assert judge is not None, "flows/recipes/recipe.py says so"
    if not judge.spec.answers_at_once:
        raise UserError(
            "data: `rounds` ask one judge that answers at once: a reward model, a program or an "
            "LLM, not several, a person or itself."
        )
    trained = train_online(
        policy=here.start,
        reference=here.reference,
        prompts=given.prompts,
        by=judge.spec,
        model=judge.model,
        baseline=baseline_of(here, given.prompts, r.labels_by),
        sampling=r.sampling,
        rounds=r.rounds,
        lists=r.trains_on == "answers",
        pairing=r.pairing,
        loss=r.loss,
        training=r.training,
        seed=here.seed,
    )
    return trained, IterationData(prompts=given.prompts)


LEARN: dict[Data, Callable[[Standing, Given, Seated | None], Learned]] = {
    "samples": samples,
    "preferences": preferences,
    "gold": gold,
    "lists": lists,
    "rounds": rounds,
    "seeds": seeds,
}


def _speaker(here: Standing) -> ModelRef:
    """Who answers the prompts: the policy, or what a server of the recipe's serves."""
    sampler = here.recipe.sampler
    return here.policy if sampler.of_the_policy else register_endpoint(sampler.endpoint.model)


def _sweep(here: Standing, speaker: ModelRef, judge: Seated) -> DatasetRef | None:
    """The temperature that suits this iteration's policy, tried on a few of its prompts."""
    r = here.recipe
    if not r.sweep.temperatures:
        return None
    few = slice_of(here, min(r.sweep.prompts, r.prompts.per_iteration))
    baseline = baseline_of(here, few, r.labels_by)
    tried = [r.sampling.model_copy(update={"temperature": one}) for one in r.sweep.temperatures]
    answers = [sample(speaker, few, sampling, here.seed, r.sampler) for sampling in tried]
    verdicts = [scored(few, completions, judge, baseline) for completions in answers]
    return choose_temperature(answers, verdicts, r.sweep.temperatures)


def _people(here: Standing, given: Given, sides: str) -> tuple[DatasetRef, DatasetRef]:
    """The iteration's slice of the prompts that people have answered, and their answers."""
    r, source = here.recipe, find_source(here.recipe.preferences.source, PREFERENCES_FILE)
    first = (here.iteration - 1) * r.prompts.per_iteration if r.prompts.schedule == "next" else 0
    prompts = load_preference_prompts(
        source.name, source.digest, "reward", first, r.prompts.per_iteration, given.held_out
    )
    return prompts, load_preference_answers(
        prompts, source.name, source.digest, "reward", "chosen" if sides == "chosen" else "both"
    )


def _imitated(
    here: Standing, policy: ModelRef, answers: DatasetRef, system: str | None
) -> ModelRef:
    r = here.recipe
    return train(
        policy=policy,
        reference=here.reference,
        pairs=[answers],
        loss=Loss.of("nll"),
        training=r.training,
        system=system,
        chat_template=r.sampling.chat_template,
        seed=here.seed,
    )


def _pairs(here: Standing, data: IterationData) -> Learned:
    """Train on the pairs of this iteration and of those before that the recipe pools."""
    r = here.recipe
    assert data.pairs is not None, "the caller has made them"
    earlier = [before.pairs for before in here.earlier if before.pairs is not None]
    trained = train(
        policy=here.start,
        reference=here.reference,
        pairs=r.pooled(earlier, data.pairs),
        loss=r.loss,
        training=r.training,
        system=r.sampling.system,
        chat_template=r.sampling.chat_template,
        seed=here.seed,
    )
    return trained, data


def _answers(here: Standing, data: IterationData, judge: Seated) -> Learned:
    """Train on the accepted answers of the pool, all judged by the judge of this iteration; once,
    or once for each threshold of `improve`.
    """
    r = here.recipe
    pool = [
        (iteration.prompts, answers)
        for iteration in r.pooled(here.earlier, data)
        if iteration.prompts is not None
        for answers in iteration.judged()
    ]
    verdicts = [
        scored(prompts, answers, judge, baseline_of(here, prompts, r.labels_by), whiten=True)
        for prompts, answers in pool
    ]
    trained, acceptances = here.start, None
    for stage, threshold in enumerate(r.improve.thresholds or [r.acceptance.threshold]):
        acceptances = accept_answers(
            [prompts for prompts, _ in pool],
            [answers for _, answers in pool],
            verdicts,
            r.acceptance.model_copy(update={"threshold": threshold}),
            here.seed,
        )
        rate = r.training.learning_rate * r.improve.learning_rate_share**stage
        trained = train_on_answers(
            policy=trained,
            reference=here.reference,
            answers=acceptances,
            loss=r.loss,
            training=r.training.model_copy(update={"learning_rate": rate}),
            system=r.sampling.system,
            chat_template=r.sampling.chat_template,
            seed=derive_seed(here.seed, stage),
        )
    of_completions = verdicts[-len(data.judged())]  # people's answers come after the policy's own
    return trained, replace(data, acceptances=acceptances, verdicts=of_completions)
