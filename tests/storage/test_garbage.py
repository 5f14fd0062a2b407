"""What `gc` lets go and what it keeps; what `verify` finds; both say so before anything is changed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock

from dapflow.storage import Lake, LakeError, OpenVersion, Ref
from dapflow.storage.export import export
from dapflow.storage.files import verify
from dapflow.storage.garbage import collect, find_garbage
from dapflow.storage.lineage import trace
from dapflow.storage.runs import record_run
from dapflow.storage.versions import Opening, forget, open_version
from dapflow.tasks.prompts.preferences import IMPORTED, import_preferences
from tests.helpers.lakes import (
    Made,
    empty_lake,
    ids,
    initial_policy,
    iteration,
    named,
    numbered,
    write,
)


def run(lake: Lake, name: str, made: Made) -> None:
    """A finished run whose policy is this."""
    with record_run(lake, name, "rso", {}) as going:
        going.made(1, made["trained"], made["metrics"])


@pytest.fixture(scope="module")
def three_nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Made]]:
    """A lake of three nights, each from the policy of the night before, then a version that no run
    used; only to be copied.
    """
    with Lake(empty_lake(tmp_path_factory.mktemp("nights"))) as lake:
        policy, nights = initial_policy(lake), list[Made]()
        for number in range(3):
            nights.append(iteration(lake, number, policy if number < 2 else nights[0]["trained"]))
            run(lake, f"night {number}", nights[-1])
        for place, name in (("models", "model.safetensors"), ("reports", "index.html")):
            folder = lake.root / place / nights[1]["trained"].version
            folder.mkdir(parents=True)
            (folder / name).write_bytes(b"x" * 1000)
        return lake.root, nights


@pytest.fixture
def nights(three_nights: tuple[Path, list[Made]]) -> list[Made]:
    """The nights that the test's lake holds."""
    return three_nights[1]


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    """A lake, empty where the test asks for no nights."""
    if "nights" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("three_nights")[0], tmp_path / "lake")
    else:
        empty_lake(tmp_path / "lake")
    with Lake(tmp_path / "lake") as lake:
        yield lake


def versions(made: Made) -> set[str]:
    return {ref.version for name, ref in made.items() if name != "policy"}


def test_what_kept_policies_came_from_stays_and_the_rest_goes(
    lake: Lake, nights: list[Made]
) -> None:
    assert find_garbage(lake, imports=[IMPORTED], runs=3) == []
    found = find_garbage(
        lake, imports=[IMPORTED], runs=1
    )  # the last night's policy came from the first night's
    assert {one.info.version for one in found} == versions(
        nights[1]
    )  # and its figures stay with it
    assert {one.why for one in found} == {"no kept model needs it"}
    assert sum(one.bytes for one in found) > 2000
    assert len(lake.rows_of(nights[1]["pairs"])) == 4  # nothing has been removed by looking
    assert find_garbage(lake, imports=[IMPORTED], runs=1, keep=[nights[1]["metrics"].version]) == []

    collect(lake, found)
    assert [lake.find(version) for version in versions(nights[1])] == [None] * len(
        versions(nights[1])
    )
    assert not any(
        (lake.root / place / nights[1]["trained"].version).exists()
        for place in ("models", "reports")
    )
    assert not [
        path
        for path in (lake.root / "data").rglob("*.parquet")
        if path.parent.name[8:] in versions(nights[1])
    ]
    assert [damages for _, damages in verify(lake) if damages] == []
    assert trace(lake, f"{nights[2]['pairs'].version}-2").down
    assert (
        lake.catalogue().versions[nights[1]["pairs"].version].state == "dropped"
    )  # its record stays, with its edges
    assert [one.kind for one in trace(lake, nights[1]["pairs"].version).up] == [
        "prompts",
        "completions",
        "acceptances",
    ]
    assert find_garbage(lake, imports=[IMPORTED], runs=1) == []
    again = iteration(lake, 1, nights[0]["trained"])  # and it can be made again under its name
    assert lake.rows_of(again["pairs"]) != [] and lake.find(again["trained"].version)


def test_what_compares_a_kept_model_with_another_does_not_keep_the_other(
    lake: Lake, nights: list[Made]
) -> None:
    initial, worse = nights[0]["policy"], nights[1]["trained"]
    rows = pa.table(
        {
            "id": ids(named("against"), 1),
            "subject": [worse.version],
            "name": ["win_rate"],
            "value": [0.4],
        }
    )
    against = write(
        lake,
        "metrics",
        named("against"),
        "evaluate_against",
        rows,
        {"policy": worse, "initial": initial},
    )
    run(lake, "a night on the first one's policy", iteration(lake, 3, nights[0]["trained"]))
    found = {one.info.version for one in find_garbage(lake, imports=[IMPORTED], runs=1)}
    assert found == versions(nights[1]) | versions(nights[2]) | {against.version}


def test_open_versions_of_dead_writers_go_and_those_of_living_ones_stay(lake: Lake) -> None:
    version = named("dead")
    with (
        pytest.raises(RuntimeError),
        open_version(
            lake, Opening(kind="prompts", version=version, step="s", code="c", parameters={})
        ) as opened,
    ):
        assert isinstance(opened, OpenVersion)
        opened.write(0, [{"id": opened.row_id(0), "prompt": "p" * 1000}])
        raise RuntimeError("died")
    with FileLock(lake.root / "locks" / f"{version}.lock"):
        assert find_garbage(lake, imports=[IMPORTED]) == []
    [found] = find_garbage(lake, imports=[IMPORTED])
    assert (found.info.version, found.why, found.bytes > 0) == (
        version,
        "left open by a dead run",
        True,
    )
    collect(lake, [found])
    assert version not in lake.catalogue().versions
    assert not list((lake.root / "checkpoints").iterdir())


def test_imported_data_and_what_a_run_that_is_going_on_has_made_stay(
    lake: Lake, nights: list[Made], tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"}))
    imported = import_preferences(lake, file)
    with record_run(lake, "tonight", "rso", {}):
        fresh = numbered(lake, 1)
        gone = {one.info.version for one in find_garbage(lake, imports=[IMPORTED], runs=1)}
    assert gone == versions(nights[1])
    assert not gone & {imported.version, fresh.version}


def test_what_runs_that_were_killed_have_made_stays_until_a_run_is_done(lake: Lake) -> None:
    killed = iteration(lake, 1, initial_policy(lake))
    for name in ("first", "second"):
        with pytest.raises(RuntimeError), record_run(lake, name, "rso", {}):
            raise RuntimeError("killed")
    assert find_garbage(lake, imports=[IMPORTED], runs=1) == []
    done = iteration(lake, 2, killed["policy"])
    run(lake, "third", done)
    assert {one.info.version for one in find_garbage(lake, imports=[IMPORTED], runs=1)} == versions(
        killed
    )
    with record_run(lake, "fourth", "rso", {}):
        pass
    fresh = numbered(lake, 3)
    lake.commit(
        lambda cursor: cursor.execute(
            "INSERT INTO edges VALUES (?, ?, 'p')", [fresh.version, killed["pairs"].version]
        ),
        "new",
    )
    gone = {one.info.version for one in find_garbage(lake, imports=[IMPORTED], runs=2)}
    assert (
        killed["pairs"].version not in gone and killed["prompts"].version not in gone
    )  # what is new stands on it


def test_nothing_is_removed_while_a_run_is_going_on(lake: Lake, nights: list[Made]) -> None:
    found = find_garbage(lake, imports=[IMPORTED], runs=1)
    with (
        record_run(lake, "tonight", "rso", {}),
        pytest.raises(LakeError, match="A run is going on .rso, process"),
    ):
        collect(lake, found)
    collect(lake, found)


def test_a_lake_without_runs_has_no_garbage(lake: Lake) -> None:
    numbered(lake, 1)
    assert find_garbage(lake, imports=[IMPORTED], runs=1) == []


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (Path.unlink, "missing"),
        (lambda file: os.truncate(file, 50), "truncated"),
        (lambda file: file.write_bytes(file.read_bytes()[:-8] + b"\0" * 8), "changed"),
        (lambda file: file.write_bytes(file.read_bytes() + b"more"), "changed"),
    ],
)
def test_verify_names_the_damaged_file_and_its_version_is_made_again(
    lake: Lake, damage: Callable[[Path], None], what: str
) -> None:
    ref, other = numbered(lake, 1), numbered(lake, 2)
    [file] = (lake.root / "data").rglob(f"version={ref.version}/*.parquet")
    damage(file)
    found = {one: damages for one, damages in verify(lake) if damages}
    assert list(found) == [ref]
    assert [(one.what, one.path) for one in found[ref]] == [(what, str(file))]
    collect(lake, find_garbage(lake, imports=[IMPORTED]))  # works beside the damage
    if (
        file.exists()
        and file.stat().st_size == lake.catalogue().files_of("prompts", ref.version)[0].bytes
    ):
        forget(lake, [ref.version])  # only a checksum tells, which no run computes
    assert numbered(lake, 1) == ref
    assert len(lake.rows_of(ref)) == len(lake.rows_of(other)) == 6
    assert [one for one, damages in verify(lake) if damages] == []


def test_a_catalogue_without_its_data_says_what_is_gone(lake: Lake, tmp_path: Path) -> None:
    ref = numbered(lake, 1)
    (lake.root / "data").rename(tmp_path / "elsewhere")
    assert [damages[0].what for _, damages in verify(lake)] == ["missing"]
    with pytest.raises(Exception, match="find out what is missing"):
        export(lake, ref, tmp_path / "rows.jsonl")
    assert numbered(lake, 1).rows == 6


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_with_a_damaged_file_is_named_and_made_again(lake: Lake, name: str) -> None:
    def make() -> Ref:
        with open_version(
            lake,
            Opening(kind="models", version=named("model"), step="train", code="c", parameters={}),
        ) as opened:
            if isinstance(opened, Ref):
                return opened
            directory = opened.scratch / "partial-policy"
            directory.mkdir()
            (directory / "model.safetensors").write_bytes(b"weights")
            (directory / "config.json").write_text("{}")
            opened.write(0, [{"id": opened.row_id(0), "path": opened.publish(directory)}])
            return opened.complete({}, None, None)

    ref = make()
    assert not any(damages for _, damages in verify(lake))
    file = lake.root / "models" / ref.version / name
    original = file.read_bytes()
    file.write_bytes(original[:-1] + b"?")
    assert [(one.what, one.path) for _, damages in verify(lake) for one in damages] == [
        ("changed", str(file))
    ]
    for damage in (lambda: file.write_bytes(original[:1]), file.unlink):
        damage()
        assert any(damages for _, damages in verify(lake))
        assert make() == ref
        assert file.read_bytes() == original
        assert not any(damages for _, damages in verify(lake))
