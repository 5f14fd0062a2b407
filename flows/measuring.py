"""How the new policy is measured: against the policy before it and other baselines, and by what it
has become. Part of one iteration.

    parts = measure(recipe, held_out, Candidate(policy=trained, before=policy, initial=initial, learned=[pairs ...], ...))
`parts["metrics"]` has all figures (tasks/metrics.py says what each is).
"""

from collections.abc import Callable
from dataclasses import dataclass

from dapflow.flows.judges import Who, compares, models_of, same_judge
from dapflow.flows.labelling import contest, score, scored
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.evaluation.baseline import FILES, load_baseline_answers, policy_of
from dapflow.tasks.evaluation.contamination import find_overlap
from dapflow.tasks.evaluation.divergence import measure_displacement, measure_divergence
from dapflow.tasks.evaluation.exact import TASKS_FILE, check_answers, load_tasks
from dapflow.tasks.evaluation.harness import compare_harness, run_harness
from dapflow.tasks.evaluation.measure import Side, evaluate, evaluate_against
from dapflow.tasks.evaluation.provenance import measure_provenance
from dapflow.tasks.evaluation.two_turns import (
    TURNS_FILE,
    evaluate_turn,
    follow_up,
    load_first_turns,
    whole_conversations,
)
from dapflow.tasks.prompts.load import PROMPTS_FILE, load_prompts
from dapflow.tasks.prompts.sources import Source, find_source
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.seeds import derive_seed

Judged = dict[str, DatasetRef]
Opponent = ModelRef | DatasetRef
"""A baseline: a policy, or answers that somebody else has given."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained policy and what its measurement needs to know. before: the policy that the
    iteration began with; start: the one whose weights it was trained from; learned: all pairs that
    it and its ancestors learned from, the newest last; of what learned from no pairs, the prompts.
    judged: the completions that the iteration's judge was asked about, apart from rounds.

    scorer, referee: who labelled what was learned from, None for people, and who measures the
    result; their baselines: an answer of the initial policy to each held-out prompt, and to each of
    any prompts, for a judge that compares with one. tasks: as `tasks_of` gives them; harnessed:
    benchmarks of `before`.
    """

    policy: ModelRef
    before: ModelRef
    start: ModelRef
    initial: ModelRef
    learned: list[DatasetRef]
    judged: list[DatasetRef]
    scorer: Who | None
    referee: Who
    scorer_baseline: DatasetRef | None
    referee_baseline: Callable[[DatasetRef], DatasetRef | None]
    opponents: dict[str, Opponent]
    tasks: dict[str, tuple[Source, DatasetRef]]
    harnessed: DatasetRef | None


def measure(r: Recipe, held_out: DatasetRef, one: Candidate) -> dict[str, DatasetRef]:
    """All datasets of the measurement, by name; the figures are in `metrics`."""
    before, after = answers_of(r, one.before, held_out), answers_of(r, one.policy, held_out)
    overlap = find_overlap(held_out, one.learned, r.evaluation.overlap)
    judged = _contest(held_out, before, after, one)
    rewards = [
        None if one.scorer is None else score(held_out, answers, one.scorer, one.scorer_baseline)
        for answers in (before, after)
    ]
    metrics = evaluate(
        one.policy,
        before=Side(answers=before, judged=judged.get("judged_before"), reward=rewards[0]),
        after=Side(answers=after, judged=judged.get("judged_after"), reward=rewards[1]),
        seed=r.seed,
        compared=judged.get("compared"),
        labelled_by=models_of(one.scorer),
        judged_by=models_of(one.referee),
        same_judge=same_judge(one.scorer, one.referee),
        overlap=overlap,
        measured=[
            *_against(r, held_out, one, before, after, judged, overlap),
            *_distances(r, one),
            *_exact(r, one),
            *_two_turns(r, one),
            *_harness(r, one),
            measure_provenance(one.policy, one.start, one.before, one.judged),
        ],
    )
    return {
        "held_out": held_out,
        "before": before,
        "after": after,
        "overlap": overlap,
        **judged,
        "metrics": metrics,
    }


def answers_of(r: Recipe, policy: ModelRef, prompts: DatasetRef) -> DatasetRef:
    """A policy's answers to the held-out prompts."""
    return sample(policy, prompts, r.evaluation.sampling, r.seed, r.sampler.own)


def _contest(prompts: DatasetRef, before: DatasetRef, after: DatasetRef, one: Candidate) -> Judged:
    """The referee's verdicts on two policies' answers."""
    return contest(prompts, before, after, one.referee, one.referee_baseline(prompts))


def _against(
    r: Recipe,
    held_out: DatasetRef,
    one: Candidate,
    before: DatasetRef,
    after: DatasetRef,
    judged: Judged,
    overlap: DatasetRef,
) -> list[DatasetRef]:
    """Win rates against the recipe's baselines. The policy before is judged already."""
    rates: list[DatasetRef] = []
    for name, opponent in one.opponents.items():
        theirs = answers_of(r, opponent, held_out) if isinstance(opponent, ModelRef) else opponent
        found = judged if theirs == before else _contest(held_out, theirs, after, one)
        rates.append(
            evaluate_against(
                one.policy,
                baseline=name,
                theirs=Side(answers=theirs, judged=found.get("judged_before")),
                ours=Side(answers=after, judged=found.get("judged_after")),
                seed=r.seed,
                contest=found.get("compared"),
                overlap=overlap,
            )
        )
    return rates


def opponents_of(
    r: Recipe, held_out: DatasetRef, previous: ModelRef, initial: ModelRef
) -> dict[str, Opponent]:
    """The recipe's baselines: `initial`, `previous`, `promoted`, a policy of the lake by id, or a
    file of answers. Raises UserError.
    """
    known = {"initial": initial, "previous": previous}
    return {
        name: known[name]
        if name in known
        else _answers_in(name, held_out)
        if name.endswith(FILES)
        else policy_of(name, initial)
        for name in r.evaluation.baselines
    }


def _answers_in(file: str, held_out: DatasetRef) -> DatasetRef:
    source = find_source(file, "")
    return load_baseline_answers(source.name, source.digest, held_out)


def _distances(r: Recipe, one: Candidate) -> list[DatasetRef]:
    """KL to the initial policy, on answers of its own at temperature 1, and what became of the
    answers it learned from.
    """
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
    own = sample(one.policy, few, sampling, derive_seed(r.seed, "kl"), r.sampler.own)
    divergence = measure_divergence(
        one.policy, one.initial, few, own, sampling.system, sampling.chat_template, r.seed
    )
    if (
        one.learned[-1].kind != "pairs"
    ):  # from answers or in rounds: there are no pairs to be displaced
        return [divergence]
    return [
        divergence,
        measure_displacement(
            one.policy,
            one.start,
            one.learned[-1],
            r.evaluation.probes,
            r.sampling.system,
            r.sampling.chat_template,
            r.seed,
        ),
    ]


def tasks_of(r: Recipe) -> dict[str, tuple[Source, DatasetRef]]:
    """Tasks with an exact answer, and first turns, of those that the recipe names, with where they
    come from. Raises UserError for a file that is wrong.
    """
    found = dict[str, tuple[Source, DatasetRef]]()
    if name := r.evaluation.exact.source:
        source = find_source(name, TASKS_FILE)
        found["exact"] = source, load_tasks(source.name, source.digest)
    if name := r.evaluation.two_turns.source:
        source = find_source(name, TURNS_FILE)
        found["two turns"] = source, load_first_turns(source.name, source.digest)
    return found


def _exact(r: Recipe, one: Candidate) -> list[DatasetRef]:
    """Exact-answer tasks, solved by the policy before and after."""
    if "exact" not in one.tasks:
        return []
    (source, tasks), sampling = (
        one.tasks["exact"],
        r.evaluation.exact.sampling(r.evaluation.sampling.chat_template),
    )
    before, after = (
        sample(policy, tasks, sampling, r.seed, r.sampler.own)
        for policy in (one.before, one.policy)
    )
    return [check_answers(one.policy, tasks, source.name, source.digest, before, after, r.seed)]


def harnessed(r: Recipe, policy: ModelRef) -> DatasetRef | None:
    """A policy on the recipe's tasks of lm-evaluation-harness, if it names some."""
    return run_harness(policy, r.evaluation.harness) if r.evaluation.harness.tasks else None


def _harness(r: Recipe, one: Candidate) -> list[DatasetRef]:
    if one.harnessed is None:
        return []
    return [
        compare_harness(
            one.policy, one.harnessed, run_harness(one.policy, r.evaluation.harness), r.seed
        )
    ]


def _two_turns(r: Recipe, one: Candidate) -> list[DatasetRef]:
    """Conversations of two turns with the policy before and the new one, each turn judged."""
    if "two turns" not in one.tasks:
        return []
    (source, tasks), policies = one.tasks["two turns"], (one.before, one.policy)
    sampling = r.evaluation.sampling.model_copy(update={"n": 1})
    first = [sample(policy, tasks, sampling, r.seed, r.sampler.own) for policy in policies]
    asked = [follow_up(tasks, source.name, source.digest, answers) for answers in first]
    seed = derive_seed(r.seed, "second turn")
    second = [
        sample(policy, prompts, sampling, seed, r.sampler.own)
        for policy, prompts in zip(policies, asked, strict=True)
    ]
    judged = list(_contest(tasks, first[0], first[1], one).values())
    turns = [evaluate_turn(one.policy, 1, [tasks, tasks], first, judged, r.seed)]
    if compares(one.referee):
        whole = [
            whole_conversations(prompts, answers)
            for prompts, answers in zip(asked, second, strict=True)
        ]
        judged = list(_contest(tasks, whole[0], whole[1], one).values())
        return [*turns, evaluate_turn(one.policy, 2, [tasks, tasks], whole, judged, r.seed)]
    sides = list(zip(asked, second, strict=True))
    judged = [
        scored(prompts, answers, one.referee, one.referee_baseline(prompts))
        for prompts, answers in sides
    ]
    return [*turns, evaluate_turn(one.policy, 2, asked, second, judged, r.seed)]
