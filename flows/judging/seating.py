"""Who judges in a run: a judge as the recipe names it becomes one that can be asked.

    labeller_of(here) -> Labeller      who labels what is trained on
    referee_of(here)  -> Seated        who measures the result
Test: pytest tests/flows/judges
"""

from dataclasses import dataclass

from dapflow.flows.judging.labelling import label
from dapflow.flows.judging.self_judge import proved
from dapflow.flows.prompting import slice_of
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.standing import Standing
from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.judging.judges.lake_model import seated_model
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.judging.kinds import spec_of
from dapflow.tasks.judging.spec import JudgeSpec, Seated
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, Part, load_preferences
from dapflow.tasks.prompts.sources import Source, find_source
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.training.reward.train import train_reward_model


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """What a run gives its judges (tasks/judging/spec.py: Seats).

    policy: the policy of the iteration, which may judge itself.
    initial: the backbone of reward models.
    part: of the preferences, which a reward model learns from.
    """

    recipe: Recipe
    policy: ModelRef
    initial: ModelRef
    part: Part

    @classmethod
    def of(cls, here: Standing, part: Part) -> "OfRun":
        """What an iteration gives them."""
        return cls(recipe=here.recipe, policy=here.policy, initial=here.initial, part=part)

    @property
    def sampler(self) -> Sampler:
        """How the policy is sampled from."""
        return self.recipe.sampler.own

    @property
    def chat_template(self) -> str | None:
        """That of the policy's prompts."""
        return self.recipe.sampling.chat_template

    def reward_model(self, settings: RewardModel) -> Seated:
        """A reward model, trained on people's preferences."""
        source = self._preferences()
        labelled = load_preferences(source.name, source.digest, self.part)
        return self._trained(settings, labelled, source)

    def taught(self, settings: RewardModel, labelled: DatasetRef) -> Seated:
        """A reward model, trained on labelled pairs and tested on people's."""
        return self._trained(settings, labelled, self._preferences())

    def _preferences(self) -> Source:
        return find_source(self.recipe.preferences.source, PREFERENCES_FILE)

    def _trained(self, settings: RewardModel, labelled: DatasetRef, source: Source) -> Seated:
        test = load_preferences(source.name, source.digest, "test")
        trained = train_reward_model(self.initial, labelled, test, settings, self.recipe.seed)
        return seated_model(trained, ranker=settings.compares_with_a_baseline)


def check_judge(recipe: Recipe, judge: JudgeSpec | None, labels: bool) -> None:
    """Raise UserError for a judge that could not be asked, before anything is run. labels: whether
    it labels the training pairs.
    """
    if judge is not None:
        judge.check()
        if labels and judge.compares and (sentence := recipe.without_scores()):
            raise UserError(f"The recipe is not valid: {sentence}.")
    if labels and recipe.soft_labels:
        by_people = {"preferences", "gold", "seeds"}.issuperset(recipe.data)
        _check_soft_labels(None if by_people else recipe.labels_by)


def _check_soft_labels(judge: JudgeSpec | None) -> None:
    """Raise UserError for a judge, or one that may stand in for it, whose labels have no
    probability.
    """
    if judge is None:
        raise UserError(
            "loss.soft_labels needs a judge that says how sure it is, and people's pairs do not: "
            "set loss.label_smoothing, or take pairs of the policy's own samples."
        )
    standby = judge.proof and judge.proof.fallback
    for labeller in filter(None, (judge, spec_of(standby) if standby else None)):
        if not labeller.weighs_pairs:
            raise UserError(
                f"loss.soft_labels needs probabilities, and scores of the judge {labeller} are not "
                "log-odds: take a reward model or a judge that compares two answers, or leave "
                "soft_labels out."
            )


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """Who labels what an iteration trains on.

    judge: None where people have, or nobody can.
    named: the judge that the recipe names; another than `judge` where it has not proved itself.
    quality: metrics of how good a judge the named one is, where it has to prove itself.
    """

    judge: Seated | None
    named: Seated | None
    quality: DatasetRef | None


def labeller_of(here: Standing) -> Labeller:
    """Who labels. Raises UserError to stop a run whose policy cannot judge itself."""
    if here.recipe.judge is None:
        return Labeller(judge=None, named=None, quality=None)
    run = OfRun.of(here, "reward")
    if here.recipe.annotated_prompts:
        taught = _taught(here, run)
        return Labeller(judge=taught, named=taught, quality=None)
    named = here.recipe.named_judge.seated(run)
    if named.spec.proof is None:
        return Labeller(judge=named, named=named, quality=None)
    before = here.earlier[-1].judge_quality if here.earlier else None
    judge, quality = proved(here, named, run, before)
    return Labeller(judge=judge, named=named, quality=quality)


def referee_of(here: Standing) -> Seated:
    """Who measures the result: never the judge that labelled the training pairs, unless the recipe
    says so.
    """
    return here.recipe.evaluation.judge.seated(OfRun.of(here, "judge"))


def _taught(here: Standing, run: OfRun) -> Seated:
    """A reward model that learned from the judge's labels on samples of the initial policy (RLAIF,
    arXiv 2309.00267).
    """
    r, annotator = here.recipe, here.recipe.named_judge
    prompts = slice_of(here.at(1), r.annotated_prompts)
    seed = derive_seed(r.seed, "annotation")
    completions = sample(here.initial, prompts, r.sampling, seed, r.sampler.own)
    baseline = baseline_of(here, prompts, annotator)
    labelled = label(r, prompts, completions, annotator.seated(run), baseline, seed)
    assert labelled.pairs is not None, "labels are pairs"
    return run.taught(r.reward, labelled.pairs)


def baseline_of(here: Standing, prompts: DatasetRef, judge: JudgeSpec | None) -> DatasetRef | None:
    """One answer of the initial policy to each prompt, for a judge that compares with it."""
    if judge is None or not judge.compares_with_a_baseline:
        return None
    r = here.recipe
    sampling = r.sampling.model_copy(update={"n": 1})
    return sample(here.initial, prompts, sampling, derive_seed(r.seed, "baseline"), r.sampler.own)
