"""Recipes are values; what is wrong with one is said in a sentence that names the key."""

import ast
from pathlib import Path

import pytest
import yaml

from dapflow.flows.align import chain, chosen
from dapflow.flows.cli.recipes import in_full
from dapflow.flows.iteration import iterate
from dapflow.flows.recipes.changes import at, change, origins
from dapflow.flows.recipes.methods import DPO, RECIPES, REJECTION_SAMPLING, RSO, recipe_named
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import UserError
from dapflow.tasks.step import Work, planning
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.registry import losses
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "sampling.temprature=1",
            r"no key `sampling.temprature`: did you mean `sampling.temperature`\?",
        ),
        ("sampler.shards.count=4", r"no key `sampler.shards`: did you mean `shards`\?"),
        ("zzz=1", r"no key `zzz`: `dapflow recipes NAME` prints all keys"),
        (
            "sampling.temperature=-1",
            r"`sampling.temperature` must be greater than or equal to 0, not -1",
        ),
        ("sampling.temperature=hot", r"`sampling.temperature` must be a valid number.*'hot'"),
        ("sampling.top_p=0", r"`sampling.top_p` must be greater than 0"),
        ("sampling.temperature=.inf", r"`sampling.temperature` must be a finite number"),
        ("sampling.stop=END", r"`sampling.stop` must be a list, such as \[END\]"),
        ("sampling.stop=['']", r"`sampling.stop.0` must have at least 1 character"),
        (
            "sampler.endpoint.base_url=localhost:8000/v1",
            r"`sampler.endpoint.base_url`: must begin with http://",
        ),
        (
            "acceptance.rule=top",
            r"`acceptance.rule` must be 'rso', 'all', 'best' or 'threshold', not 'top'",
        ),
        ("acceptance.rule=best", r"leaves nothing to pair: set trains_on to answers"),
        (
            "loss=ppo",
            r"the loss ppo needs a value model, so set data to rounds and trains_on to answers",
        ),
        (
            "then={iteration: 3, changes: {lose: nll}}",
            r"then.changes: A recipe has no key `lose`: did you mean `loss`\?",
        ),
        ("then={iteration: 3, changes: {loss: ppo}}", r"then.changes: .*needs a value model"),
        (
            "then={iteration: 1, changes: {}}",
            r"`then.iteration` must be greater than or equal to 2",
        ),
        (
            "then={iteration: 3, changes: {policy: toy}}",
            r"then.changes: `policy` is the initial one in every iteration",
        ),
        ("then={iteration: 3}", r"The recipe is not valid: `then.changes` is missing\."),
        (
            "then={iteration: 3, changes: {then: {iteration: 5, changes: {loss: ppo}}}}",
            r"then.changes: .*needs a value model",
        ),
        ("data=pairs", r"The recipe is not valid: `data.0` must be 'samples', .*, not 'pairs'\.$"),
        ("trains_on=answers", r"the loss sigmoid_norm learns from pairs: set trains_on to pairs"),
        (
            "sampling.n=1",
            r"the loss sigmoid_norm compares answers to one prompt: set sampling.n to 2 or more",
        ),
        ("loss={tau: 0.5}", r"`loss`: write it as its name, or as \{name: ipo, tau: 0.5\}"),
        (
            "loss={name: ipo, options: 3}",
            r"`loss`: write it as its name, or as \{name: ipo, tau: 0.5\}",
        ),
        ("loss={name: ipo, tau: .inf}", r"tau=inf of the loss ipo"),
        ("training.learning_rate=.inf", r"`training.learning_rate` must be a finite number"),
        ("loss=[]", r"`loss`: write it as its name, or as \{name: ipo, tau: 0.5\}"),
        ("loss=[ipo, 3]", r"`loss`: write it as its name, or as \{name: ipo, tau: 0.5\}"),
        ("loss={name: ipo, weight: 2}", r"a weight is of a loss in a list: write \[\{name: nll,"),
        ("loss=[ipo, {name: nll, weight: -1}]", r"weight=-1 of the loss nll: .*greater than or"),
        ("loss=[ipo, rrhf]", r"the loss rrhf learns from lists of answers and ipo from pairs"),
        ("loss=[ipo, ipo]", r"the loss ipo is in the sum 2 times: give it a weight"),
        ("loss=[cringe, pairwise-cringe]", r"cringe and pairwise_cringe each draw other tokens"),
        ("loss.nll.weight=1", r"A recipe has no key `loss.nll`"),
        ("acceptance.keep=1", r"`acceptance.keep` must be greater than or equal to 2"),
        ("loss=dpo2", r"there is no loss 'dpo2'; choose one of .*sigmoid"),
        ("loss.gamma=1", r"has no option 'gamma'; its options are beta"),
        ("sampling", r"write it as key=value"),
        ("sampling=3", r"`sampling`"),
        ("training.learning_rate=0", r"`training.learning_rate` must be greater than 0"),
        ("training.processes=0", r"`training.processes` must be greater than or equal to 1"),
        ("reward.form=pairwise", r"set `parameters` to lora or full"),
        ("sampler.engine=openai", r"`sampler`: engine: openai needs endpoint.model"),
        ("sampler.serve=vllm", r"goes with engine openai, and its command must take \{port\}"),
        ("policy.name=x", r"no key `policy.name`"),
        ("name=[", r"cannot be read as YAML"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(RSO, [setting])


def test_settings_are_applied_in_order() -> None:
    changed = change(
        RSO,
        [
            "loss=hinge-norm",
            "loss.gamma=0.1",
            "sampling.temperature=0.9",
            "sampling.system=null",
            "training.epochs=2",
        ],
    )
    assert changed.loss == Loss.of("hinge_norm", gamma=0.1)
    assert (changed.sampling.temperature, changed.sampling.system, changed.training.epochs) == (
        0.9,
        None,
        2,
    )
    assert RSO.sampling.temperature == 0.7  # a recipe is a value: the original stays


def test_a_recipe_survives_its_plain_form() -> None:
    for recipe in RECIPES.values():
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(UserError, match="no recipe `rs0`: choose one of rso, rso-hinge"):
        recipe_named("rs0")


def test_a_made_up_method_is_one_entry_and_no_change_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = RSO.model_copy(
        update={
            "name": "mine",
            "data": ("preferences", "lists", "rounds"),
            "loss": Loss.of("ipo", tau=0.5),
        }
    )
    monkeypatch.setitem(RECIPES, "mine", mine)
    with planning() as calls:
        list(chain(chosen("mine", [], toy=True), 3, iterate.fn))
    trained = [call for call in calls if call.kind == "models" and "loss" in call.arguments]
    assert [call.step for call in trained] == [
        "train",
        "train_on_answers",
        "train_online",
    ]  # never a step of its own
    assert {call.arguments["loss"] for call in trained} == {Loss.of("ipo", tau=0.5)}


@pytest.mark.parametrize(
    ("recipe", "reference"),
    [
        ("rso", "initial"), ("dpo", "initial"), ("ipo", "initial"), ("slic-hf", "initial"), ("oaif", "initial"),
        ("iterative-dpo", "previous"), ("spin", "previous"),
    ],
)  # fmt: skip
def test_a_second_iteration_takes_the_reference_of_the_paper_and_a_seed_of_its_own(
    recipe: str, reference: str
) -> None:
    with planning() as calls:
        list(chain(chosen(recipe, [], toy=True), 2, iterate.fn))
    one, two = [call.arguments for call in calls if call.step in ("train", "train_online")]
    initial, previous = one["policy"], two["policy"]
    assert initial != previous
    assert one["reference"] == initial
    assert two["reference"] == {"initial": initial, "previous": previous}[reference]
    assert one["seed"] != two["seed"]
    learns = [chosen(recipe, [], toy=True).data_of(number) for number in (1, 2)]
    sampled = {call.arguments["seed"] for call in calls if call.step == "sample"}
    assert {
        arguments["seed"]
        for arguments, data in zip((one, two), learns, strict=True)
        if data in ("samples", "gold")
    } <= sampled


def test_self_rewarding_imitates_first_and_then_learns_from_new_prompts_by_and_against_the_policy_before() -> (
    None
):
    with planning() as calls:
        list(chain(chosen("self-rewarding", [], toy=True), 3, iterate.fn))
    trained = [call for call in calls if call.step == "train"]
    assert [call.arguments["loss"].name for call in trained] == [
        "nll",
        "nll",
        "sigmoid_norm",
        "sigmoid_norm",
    ]
    assert [call.parents["policy"] for call in trained[1:]] == [
        call.version for call in trained[:-1]
    ]
    assert [call.parents["reference"] for call in trained[2:]] == [
        call.version for call in trained[1:-1]
    ]
    initial, steps = trained[0].parents["policy"], {call.version: call for call in calls}
    behind = [steps[call.parents["pairs[0]"]] for call in trained]
    assert [one.step for one in behind] == [
        "instruction_data",
        "agreeing_judgements",
        "pair",
        "pair",
    ]
    assert [len(call.arguments["pairs"]) for call in trained] == [
        1,
        1,
        1,
        1,
    ]  # of this iteration alone
    made = [steps[one.parents["prompts"]] for one in behind[2:]]
    assert [one.step for one in made] == ["read_prompts", "read_prompts"]
    assert {steps[one.parents["replies"]].parents["policy"] for one in made} == {initial}
    [tasks] = {call.version for call in calls if call.step == "load_tasks"}
    assert all(
        tasks in call.parents.values()
        for call in calls
        if call.step in ("ask_for_prompts", "read_prompts")
    )  # never trained on
    assert (
        len({call.version for call in calls if call.step == "ask_for_prompts"}) == 2
    )  # the first iteration needs none
    judges = [
        call.parents["model"]
        for call in calls
        if call.step == "judge" and str(call.arguments["by"]).startswith("itself")
    ]
    assert list(dict.fromkeys(judges)) == [
        initial,
        trained[1].version,
        trained[2].version,
    ]  # as good a judge as it was in each iteration


def test_from_the_iteration_that_then_names_on_its_changes_apply() -> None:
    assert at(REJECTION_SAMPLING, 4) is REJECTION_SAMPLING
    later = at(REJECTION_SAMPLING, 5)
    assert (later.loss, later.data, later.init) == (
        Loss.of("ppo", beta=0.01),
        ("rounds",),
        "previous",
    )
    assert (later.sampling.n, later.sampling.max_tokens, later.sweep.temperatures) == (
        1,
        REJECTION_SAMPLING.sampling.max_tokens,
        (),
    )
    assert (later.then, later.reward, later.prompts) == (
        None,
        REJECTION_SAMPLING.reward,
        REJECTION_SAMPLING.prompts,
    )


def test_a_judge_of_later_iterations_is_looked_for_before_the_first() -> None:
    with pytest.raises(UserError, match="There is no judge `shoter`"):
        chosen("rso", ["then={iteration: 2, changes: {judge: shoter}}"], toy=True)


def test_changes_may_name_later_changes() -> None:
    recipe = change(
        RSO,
        [
            "then={iteration: 2, changes: {sampling.n: 6, then: {iteration: 4, changes: {sampling.n: 4}}}}"
        ],
    )
    assert [at(recipe, iteration).sampling.n for iteration in range(1, 6)] == [16, 6, 6, 4, 4]


def test_rejection_sampling_goes_on_by_ppo_from_the_last_policy_it_fine_tuned() -> None:
    with planning() as calls:
        list(chain(chosen("rejection-sampling", ["then.iteration=3"], toy=True), 4, iterate.fn))
    trained = [call for call in calls if call.kind == "models" and "loss" in call.arguments]
    assert [call.step for call in trained] == [
        "train_on_answers",
        "train_on_answers",
        "train_online",
        "train_online",
    ]
    policies = [call.parents["policy"] for call in trained]
    assert (
        policies[0] == policies[1] == trained[2].parents["reference"]
    )  # fine-tuned from the initial policy, which the penalty is against
    assert policies[2:] == [trained[1].version, trained[2].version]


@pytest.mark.parametrize(
    "file", sorted([*(ROOT / "flows").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])
)
def test_no_code_asks_for_the_name_of_a_method(file: Path) -> None:
    """Outside the list of recipes a method's name is no value that code compares with or looks up."""
    if file.name == "methods.py" and file.parent.name == "recipes":
        return
    constants = {
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
    }
    losses_and_rules = set(losses()) | {
        "rso"
    }  # an acceptance rule and losses are called as the methods that brought them
    defaults = {"align.py"}  # which recipe runs when none is named
    assert not (constants & RECIPES.keys()) - losses_and_rules or file.name in defaults


SUM = "loss=[sigmoid-norm, {name: nll, weight: 0.5}]"


def test_a_sum_of_losses_is_a_list_whose_terms_change_by_their_names() -> None:
    changed = change(DPO, [SUM, "loss.sigmoid-norm.beta=0.3", "loss.nll.weight=2"])
    expected = [{"name": "sigmoid_norm", "beta": 0.3}, {"name": "nll", "weight": 2}]
    assert changed.loss == Loss.sum(*expected)
    assert change(changed, ["loss.nll.weight=0.1"]).loss.name == "sigmoid_norm + 0.1 x nll"
    assert change(changed, ["loss=ipo"]).loss == Loss.of("ipo")
    with pytest.raises(UserError, match=r"a sum of sigmoid_norm and nll: write loss.NAME.OPTION"):
        change(changed, ["loss.beta=1"])


def test_a_sum_of_losses_is_printed_as_it_is_written_with_the_sources_of_all() -> None:
    changed = change(DPO, [SUM])
    assert yaml.safe_load(in_full(changed.model_dump(mode="json"), origins(changed)))["loss"] == [
        {"name": "sigmoid_norm", "weight": 1.0} | DPO.loss.terms[0].options.model_dump(),
        {"name": "nll", "weight": 0.5},
    ]
    assert (
        origins(changed)["loss"]
        == f"recipe; {Loss.of('sigmoid_norm').source}; {Loss.of('nll').source}"
    )


def test_what_a_sum_learns_from_and_how_it_is_called_is_what_its_terms_need() -> None:
    with planning() as calls:
        list(chain(chosen("dpo", [SUM], toy=True), 1, iterate.fn))
    [trained] = [call for call in calls if "loss" in call.arguments and call.kind == "models"]
    assert "sigmoid_norm + 0.5 x nll" in trained.title


@pytest.mark.parametrize("setting", ["training.pick=best", "training.stop.log_ratio=5"])
def test_rounds_have_nothing_to_set_aside(setting: str) -> None:
    assert change(DPO, [setting]).training.sets_aside
    with pytest.raises(UserError, match="set aside before a training, which data `rounds` does"):
        change(RECIPES["oaif"], [setting])


def test_a_plan_counts_the_looks_at_what_is_set_aside() -> None:
    def work(*settings: str) -> Work:
        with planning() as calls:
            list(chain(chosen("dpo", list(settings), toy=True), 1, iterate.fn))
        [trained] = [call for call in calls if call.step == "train"]
        return trained.work

    usual, looking = work(), work("training.pick=best")
    assert (usual.scored, looking.trained) == (0, usual.trained)
    assert looking.scored > 0
    assert work("training.stop.every=1").scored == 0  # nothing looks
