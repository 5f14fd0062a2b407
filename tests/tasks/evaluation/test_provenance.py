"""What counts as an answer, a verdict or a person's label is what the step that made it says; of
what older software made nobody guesses. Whole runs: tests/flows/cli/test_compare.py.
"""

from dapflow.storage import Lake
from dapflow.tasks.evaluation.provenance import people_figures, taken_figures
from dapflow.tasks.figures import Figure
from tests.helpers.lakes import Made


def figures(lake: Lake, made: Made) -> dict[str, Figure]:
    catalogue = lake.catalogue()
    versions = {made[kind].version for kind in ("completions", "verdicts", "pairs")}
    trained = made["trained"].version
    return {
        figure.name: figure
        for figure in (
            *taken_figures(lake, catalogue, versions),
            *people_figures(
                lake, catalogue, {trained, *catalogue.learned_from(trained)}, [trained]
            ),
        )
    }


def did(lake: Lake, kind: str, activity: str | None) -> None:
    """Make it as if steps of that noun had said that, or were of older software."""
    query = "UPDATE versions SET activity = ? WHERE kind = ?"
    lake.commit(lambda cursor: cursor.execute(query, [activity, kind]), "another activity")


def test_answers_and_verdicts_count_by_what_their_steps_did(
    lake: Lake, made: Made
) -> None:  # 4 prompts, 4 answers of 3 tokens each
    told = figures(lake, made)
    assert (told["tokens_sampled"].value, told["verdicts"].value) == (4 * 4 * 3, 16)
    assert told["tokens_sampled"].note is told["verdicts"].note is None
    did(lake, "completions", "prompting")  # replies that prompts are read from
    did(lake, "verdicts", "combining")  # made of others' verdicts
    told = figures(lake, made)
    assert (told["tokens_sampled"].value, told["verdicts"].value) == (0, 0)


def test_a_policys_own_texts_are_nobodys_labels(lake: Lake, made: Made) -> None:
    lake.commit(lambda cursor: cursor.execute("DELETE FROM edges WHERE role = 'acceptances'"), "")
    assert figures(lake, made)["people_prompts"].value == 3  # one of four pairs is a tie
    did(lake, "pairs", "reading")
    told = figures(lake, made)
    assert (told["people_prompts"].value, told["people_share"].value) == (0, 0)


def test_what_older_software_made_is_left_out_and_said(lake: Lake, made: Made) -> None:
    for kind in ("completions", "verdicts", "pairs"):
        did(lake, kind, None)
    told = figures(lake, made)
    assert (told["tokens_sampled"].value, told["verdicts"].value) == (0, 0)
    assert told["verdicts"].note == "without what older software made (3 of the datasets)"
    assert told["people_prompts"].note == "without what older software made (1 of the datasets)"
