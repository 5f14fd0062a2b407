"""How the new policy is measured: against the policy before it and other baselines, and by what it
has become. Part of one iteration.

    data = measure(candidate, given, yardsticks, referee)
`data.metrics` has all figures (tasks/metrics.py says what each is).
"""

from dataclasses import dataclass, replace

from dapflow.flows.judging.labelling import (
    Contest,
    contest,
    models_of,
    same_judge,
    score,
    scored,
)
from dapflow.flows.judging.seating import baseline_of
from dapflow.flows.prompting import Given
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.standing import IterationData, Standing
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.evaluation.baseline import FILES, load_baseline_answers, policy_of
from dapflow.tasks.evaluation.contamination import find_overlap
from dapflow.tasks.evaluation.divergence import measure_displacement, measure_divergence
from dapflow.tasks.evaluation.exact import Exact, check_answers
from dapflow.tasks.evaluation.harness import compare_harness, run_harness
from dapflow.tasks.evaluation.instructions import Instructions, check_instructions
from dapflow.tasks.evaluation.measure import Side, evaluate, evaluate_against
from dapflow.tasks.evaluation.provenance import measure_provenance
from dapflow.tasks.evaluation.two_turns import (
    evaluate_turn,
    follow_up,
    whole_conversations,
)
from dapflow.tasks.judging.spec import Seated
from dapflow.tasks.pairing.tilting import measure_tilting
from dapflow.tasks.prompts.load import PROMPTS_FILE, load_prompts
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.seeds import derive_seed

Opponent = ModelRef | DatasetRef
"""A baseline: a policy, or answers that somebody else has given."""


@dataclass(frozen=True, kw_only=True)
class Yardsticks:
    """What a policy is measured against, apart from the policy before it.

    opponents: baselines by name. benchmarks: those of lm-evaluation-harness, of the policy before.
    """

    opponents: dict[str, Opponent]
    benchmarks: DatasetRef | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained policy and what its measurement needs to know.

    here: where the iteration began. data: what it has made. labeller: who labelled what was learned
    from; None for people.
    """

    here: Standing
    policy: ModelRef
    data: IterationData
    labeller: Seated | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate before its judge, the referee."""

    of: Candidate
    given: Given
    referee: Seated

    @property
    def recipe(self) -> Recipe:
        """The recipe as it is in the iteration."""
        return self.of.here.recipe

    @property
    def policies(self) -> tuple[ModelRef, ModelRef]:
        """The policy before, and the trained one."""
        return self.of.here.policy, self.of.policy

    def contest(self, prompts: DatasetRef, before: DatasetRef, after: DatasetRef) -> Contest:
        """The referee's verdicts on two policies' answers."""
        return contest(prompts, before, after, self.referee, self.baseline(prompts))

    def baseline(self, prompts: DatasetRef) -> DatasetRef | None:
        """An answer of the initial policy to each prompt, for a referee that compares with it."""
        return baseline_of(self.of.here, prompts, self.recipe.evaluation.judge)


def yardsticks_of(here: Standing, given: Given) -> Yardsticks:
    """Raises UserError for a baseline that is not there."""
    harness = here.recipe.evaluation.harness
    return Yardsticks(
        opponents=_opponents_of(here, given.held_out),
        benchmarks=run_harness(here.policy, harness) if harness.tasks else None,
    )


def measure(
    candidate: Candidate, given: Given, yardsticks: Yardsticks, referee: Seated
) -> IterationData:
    """The datasets of the iteration with those of the measurement; all figures are in `metrics`."""
    trial = Trial(of=candidate, given=given, referee=referee)
    r, here, held_out = trial.recipe, candidate.here, given.held_out
    before, after = (answers_of(r, policy, held_out) for policy in trial.policies)
    learned = [data.learned for data in (*here.earlier, candidate.data)]
    overlap = find_overlap(held_out, learned, r.evaluation.overlap)
    judged = trial.contest(held_out, before, after)
    labeller, baseline = candidate.labeller, baseline_of(here, held_out, r.labels_by)
    rewards = [
        None if labeller is None else score(held_out, answers, labeller, baseline)
        for answers in (before, after)
    ]
    measured = replace(
        candidate.data,
        held_out=held_out,
        before=before,
        after=after,
        overlap=overlap,
        compared=judged.compared,
        judged_before=judged.judged_before,
        judged_after=judged.judged_after,
    )
    metrics = evaluate(
        candidate.policy,
        before=Side(answers=before, judged=judged.judged_before, reward=rewards[0]),
        after=Side(answers=after, judged=judged.judged_after, reward=rewards[1]),
        seed=r.seed,
        compared=judged.compared,
        labelled_by=models_of(labeller),
        judged_by=models_of(referee),
        same_judge=same_judge(labeller, referee),
        overlap=overlap,
        measured=[
            *_against(trial, yardsticks, measured),
            *_distances(candidate),
            *_tilting(candidate),
            *_exact(trial),
            *_instructions(trial),
            *_two_turns(trial),
            *_harness(candidate, yardsticks),
            measure_provenance(
                candidate.policy,
                here.start,
                here.policy,
                [] if labeller is None else candidate.data.judged(),
            ),
        ],
    )
    return replace(measured, metrics=metrics)


def answers_of(r: Recipe, policy: ModelRef, prompts: DatasetRef) -> DatasetRef:
    """A policy's answers to the held-out prompts."""
    return sample(policy, prompts, r.evaluation.sampling, r.seed, r.sampler.own)


def _against(trial: Trial, yardsticks: Yardsticks, measured: IterationData) -> list[DatasetRef]:
    """Win rates against the recipe's baselines. The policy before is judged already."""
    r, held_out, rates = trial.recipe, trial.given.held_out, list[DatasetRef]()
    assert measured.after is not None
    for name, opponent in yardsticks.opponents.items():
        theirs = answers_of(r, opponent, held_out) if isinstance(opponent, ModelRef) else opponent
        judged = (
            measured
            if theirs == measured.before
            else trial.contest(held_out, theirs, measured.after)
        )
        rates.append(
            evaluate_against(
                trial.of.policy,
                baseline=name,
                theirs=Side(answers=theirs, judged=judged.judged_before),
                ours=Side(answers=measured.after, judged=judged.judged_after),
                seed=r.seed,
                contest=judged.compared,
                overlap=measured.overlap,
            )
        )
    return rates


def _opponents_of(here: Standing, held_out: DatasetRef) -> dict[str, Opponent]:
    """The recipe's baselines: `initial`, `previous`, `promoted`, a policy of the lake by id, or a
    file of answers. Raises UserError.
    """
    known = {"initial": here.initial, "previous": here.policy}
    return {
        name: known[name]
        if name in known
        else _answers_in(name, held_out)
        if name.endswith(FILES)
        else policy_of(name, here.initial)
        for name in here.recipe.evaluation.baselines
    }


def _answers_in(file: str, held_out: DatasetRef) -> DatasetRef:
    source = find_source(file, "")
    return load_baseline_answers(source.name, source.digest, held_out)


def _distances(candidate: Candidate) -> list[DatasetRef]:
    """KL to the initial policy, on answers of its own at temperature 1, and what became of the
    answers it learned from.
    """
    r, here = candidate.here.recipe, candidate.here
    if not r.evaluation.probes:
        return []
    source = find_source(r.prompts.source, PROMPTS_FILE)
    few = load_prompts(
        source.name,
        source.digest,
        "held_out",
        r.prompts.held_out,
        0,
        min(r.evaluation.probes, r.prompts.held_out),
    )
    raw = {
        "n": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop": (),
    }
    sampling = r.evaluation.sampling.model_copy(update=raw)
    own = sample(candidate.policy, few, sampling, derive_seed(r.seed, "kl"), r.sampler.own)
    divergence = measure_divergence(
        candidate.policy, here.initial, few, own, sampling.system, sampling.chat_template, r.seed
    )
    if candidate.data.pairs is None:  # of answers, or in rounds: no pairs could be displaced
        return [divergence]
    return [
        divergence,
        measure_displacement(
            candidate.policy,
            here.start,
            candidate.data.pairs,
            r.evaluation.probes,
            r.sampling.system,
            r.sampling.chat_template,
            r.seed,
        ),
    ]


def _tilting(candidate: Candidate) -> list[DatasetRef]:
    """Of candidates that rejection sampling has accepted as pairs."""
    r, accepted = candidate.here.recipe, candidate.data.acceptances
    if r.acceptance.rule != "rso" or r.trains_on == "answers" or accepted is None:
        return []
    return [measure_tilting(candidate.policy, accepted, r.acceptance, r.seed)]


def _exact(trial: Trial) -> list[DatasetRef]:
    """Exact-answer tasks, solved by the policy before and after."""
    r, tasks = trial.recipe, trial.given.tasks
    if "exact" not in tasks:
        return []
    source, prompts = tasks["exact"]
    before, after = _answered(trial, prompts, r.evaluation.exact)
    return [
        check_answers(trial.of.policy, prompts, source.name, source.digest, before, after, r.seed)
    ]


def _instructions(trial: Trial) -> list[DatasetRef]:
    """Instructions that a program verifies, followed by the policy before and after."""
    r, tasks = trial.recipe, trial.given.tasks
    if "instructions" not in tasks:
        return []
    _, prompts = tasks["instructions"]
    before, after = _answered(trial, prompts, r.evaluation.instructions)
    return [check_instructions(trial.of.policy, prompts, before, after, r.seed)]


def _answered(
    trial: Trial, prompts: DatasetRef, tasks: Exact | Instructions
) -> tuple[DatasetRef, DatasetRef]:
    """The likeliest answers of the policy before and of the new one."""
    r = trial.recipe
    sampling = tasks.sampling(r.evaluation.sampling.chat_template)
    before, after = (
        sample(policy, prompts, sampling, r.seed, r.sampler.own) for policy in trial.policies
    )
    return before, after


def _harness(candidate: Candidate, yardsticks: Yardsticks) -> list[DatasetRef]:
    if yardsticks.benchmarks is None:
        return []
    r = candidate.here.recipe
    after = run_harness(candidate.policy, r.evaluation.harness)
    return [compare_harness(candidate.policy, yardsticks.benchmarks, after, r.seed)]


def _two_turns(trial: Trial) -> list[DatasetRef]:
    """Conversations of two turns with the policy before and the new one, each turn judged."""
    r = trial.recipe
    if "two turns" not in trial.given.tasks:
        return []
    (source, tasks), policies = trial.given.tasks["two turns"], trial.policies
    sampling = r.evaluation.sampling.model_copy(update={"n": 1})
    first = [sample(policy, tasks, sampling, r.seed, r.sampler.own) for policy in policies]
    asked = [follow_up(tasks, source.name, source.digest, answers) for answers in first]
    seed = derive_seed(r.seed, "second turn")
    second = [
        sample(policy, prompts, sampling, seed, r.sampler.own)
        for policy, prompts in zip(policies, asked, strict=True)
    ]
    judged = trial.contest(tasks, first[0], first[1]).verdicts()
    turns = [evaluate_turn(trial.of.policy, 1, [tasks, tasks], first, judged, r.seed)]
    if trial.referee.compares:
        whole = [
            whole_conversations(prompts, answers)
            for prompts, answers in zip(asked, second, strict=True)
        ]
        judged = trial.contest(tasks, whole[0], whole[1]).verdicts()
        return [*turns, evaluate_turn(trial.of.policy, 2, [tasks, tasks], whole, judged, r.seed)]
    sides = list(zip(asked, second, strict=True))
    judged = [
        scored(prompts, answers, trial.referee, trial.baseline(prompts))
        for prompts, answers in sides
    ]
    return [*turns, evaluate_turn(trial.of.policy, 2, asked, second, judged, r.seed)]
