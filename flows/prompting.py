"""Which prompts an iteration trains on, and which are held out. Part of one iteration
(flows/iteration.py).
"""

from dataclasses import dataclass

from dapflow.flows.standing import Standing
from dapflow.storage import DatasetRef
from dapflow.tasks.evaluation.exact import TASKS_FILE, load_tasks
from dapflow.tasks.evaluation.instructions import INSTRUCTIONS_FILE, load_instructions
from dapflow.tasks.evaluation.two_turns import TURNS_FILE, load_first_turns
from dapflow.tasks.prompts.load import PROMPTS_FILE, SEEDS_FILE, load_prompts
from dapflow.tasks.prompts.sources import Source, find_source
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.self_instruct.steps import Known, self_instruct


@dataclass(frozen=True, kw_only=True)
class Given:
    """The prompts of an iteration. tasks: those of the evaluation, with where they come from."""

    prompts: DatasetRef
    held_out: DatasetRef
    tasks: dict[str, tuple[Source, DatasetRef]]


def prompts_of(here: Standing) -> Given:
    """The prompts this iteration trains on, and what it is measured on. Raises UserError for a file
    that is wrong.
    """
    p, source = here.recipe.prompts, find_source(here.recipe.prompts.source, PROMPTS_FILE)
    held_out = load_prompts(source.name, source.digest, "held_out", p.held_out)
    tasks = _tasks_of(here)
    if p.schedule == "self-instruct" and here.recipe.answers_prompts(here.iteration):
        aside = [held_out, *(ref for _, ref in tasks.values())]
        return Given(prompts=_new_prompts(here, aside), held_out=held_out, tasks=tasks)
    return Given(prompts=slice_of(here, p.per_iteration), held_out=held_out, tasks=tasks)


def slice_of(here: Standing, count: int) -> DatasetRef:
    """The first `count` prompts of the iteration's slice."""
    p, source = here.recipe.prompts, find_source(here.recipe.prompts.source, PROMPTS_FILE)
    first = (here.iteration - 1) * p.per_iteration if p.schedule == "next" else 0
    return load_prompts(source.name, source.digest, "train", p.held_out, first, count)


def _tasks_of(here: Standing) -> dict[str, tuple[Source, DatasetRef]]:
    """Tasks with an exact answer, instructions, and first turns, of those that the recipe names."""
    evaluation, tasks = here.recipe.evaluation, dict[str, tuple[Source, DatasetRef]]()
    if name := evaluation.exact.source:
        source = find_source(name, TASKS_FILE)
        tasks["exact"] = source, load_tasks(source.name, source.digest)
    if (name := evaluation.instructions.source) and (count := evaluation.instructions.prompts):
        source = find_source(name, INSTRUCTIONS_FILE)
        tasks["instructions"] = source, load_instructions(source.name, source.digest, count)
    if name := evaluation.two_turns.source:
        source = find_source(name, TURNS_FILE)
        tasks["two turns"] = source, load_first_turns(source.name, source.digest)
    return tasks


def _new_prompts(here: Standing, aside: list[DatasetRef]) -> DatasetRef:
    """Prompts that the initial policy makes for this iteration, none like those it made for the
    iterations before, or like those of `aside`.
    """
    r, p, made = here.recipe, here.recipe.prompts, list[DatasetRef]()
    name, shipped, skipped = (
        (p.generate.seeds, SEEDS_FILE, 0)
        if p.generate.seeds
        else (p.source, PROMPTS_FILE, p.held_out)
    )
    source = find_source(name, shipped)
    seeds = load_prompts(source.name, source.digest, "train", skipped, shipped=shipped)
    for number in filter(r.answers_prompts, range(1, here.iteration + 1)):
        known = Known(seeds=seeds, held_out=tuple(aside), earlier=tuple(made))
        seed = derive_seed(r.seed, number)
        made.append(
            self_instruct(here.initial, known, p.generate, p.per_iteration, seed, r.sampler.own)
        )
    return made[-1]
