"""`@step`: a Prefect task whose cache key is a dataset version of the lake. The only place that
knows about caching.

    @step("completions", title="sample {prompts.rows} prompts")
    def sample(out: Out, policy: ModelRef, prompts: DatasetRef, sampling: Sampling, seed: int) -> None:
        for number, chunk in out.missing(...): out.write(number, rows)
Called without `out`, it returns the reference of the complete version; when the lake holds it
already, in Prefect state `Cached`.
"""

import inspect
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import (
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run
from prefect.states import Completed
from pydantic import BaseModel

from dapflow.storage import DatasetRef, Lake, ModelRef, OpenVersion, Ref, UserError, version_digest
from dapflow.storage.files import intact
from dapflow.storage.logs import log
from dapflow.storage.runs import current_run
from dapflow.storage.versions import open_version
from dapflow.tasks.step.artifacts import ProgressArtifact, publish_artifacts
from dapflow.tasks.step.code_version import code_version
from dapflow.tasks.step.progress import StepRecord, reporter
from dapflow.tasks.step.tracking import track_version

P = ParamSpec("P")
Item = TypeVar("Item")
_lake: ContextVar[Lake] = ContextVar("lake")
_plan: ContextVar["list[Call] | None"] = ContextVar("plan", default=None)


@contextmanager
def use_lake(lake: Lake) -> Iterator[Lake]:
    """Steps called inside the block read and write this lake."""
    token = _lake.set(lake)
    try:
        yield lake
    finally:
        _lake.reset(token)


def current_lake() -> Lake:
    """The lake of the run that is going on. Raises UserError when there is none."""
    if (lake := _lake.get(None)) is None:
        raise UserError(
            "There is no lake yet: make one with `dapflow run` or `dapflow import`, or name one with --lake."
        )
    return lake


def rows_if_made(ref: DatasetRef) -> list[dict[str, Any]] | None:
    """The rows of a dataset; None while a run is only planned and its lake does not hold them."""
    if _plan.get() is not None and (
        (lake := _lake.get(None)) is None or lake.find(ref.version) is None
    ):
        return None
    return current_lake().rows_of(ref)


@runtime_checkable
class NamesFiles(Protocol):
    """Settings that stand for more than they say: the digests of the files that they name."""

    def content(self) -> dict[str, str]: ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """A step with its arguments, and the version that follows from them: known before anything is
    run.
    """

    kind: str
    step: str
    title: str
    version: str
    code: str
    parameters: Mapping[str, Any]
    parents: Mapping[str, str]
    arguments: Mapping[str, Any]
    rows: int = 0  # that it will write, at most; known when it is planned

    @classmethod
    def of(
        cls, kind: str, title: str, function: Callable[..., None], arguments: Mapping[str, Any]
    ) -> "Call":
        """The call of `function` with these arguments: references become parents, everything else a
        parameter.
        """
        name, code = function.__name__, code_version(function.__module__)
        parents = dict(_parents(arguments))
        held = {
            key: value
            for key, value in arguments.items()
            if not (isinstance(value, Ref) or _holds_refs(value))
        }
        parameters = {key: _plain(value) for key, value in held.items()}
        return cls(
            kind=kind,
            step=name,
            title=title.format(**arguments),
            version=version_digest(name, code, parameters, parents),
            code=code,
            parameters=parameters,
            parents=parents,
            arguments=arguments,
        )

    def ref(self, rows: int) -> Ref:
        """The reference that the step returns when it has written so many rows."""
        return (ModelRef if self.kind == "models" else DatasetRef)(self.kind, self.version, rows)


@contextmanager
def planning() -> Iterator[list[Call]]:
    """Steps called inside the block are not run: they are written down, and return the references
    they would return.
    """
    calls: list[Call] = []
    token = _plan.set(calls)
    try:
        yield calls
    finally:
        _plan.reset(token)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which chunks of a step one of several writers writes: index, index + count, index + 2 count
    ...
    """

    index: int = 0
    count: int = 1

    def __contains__(self, chunk: int) -> bool:
        return chunk % self.count == self.index

    def __str__(self) -> str:
        return f"shard {self.index + 1} of {self.count}"


_WHOLE = Share()


class Out:
    """What a step writes to: the open version, its missing chunks, its progress. share: what of it,
    if others write the rest.
    """

    def __init__(
        self, opened: OpenVersion, progress: ProgressArtifact, share: Share = _WHOLE
    ) -> None:
        self.lake = opened.lake
        self.kind = opened.kind
        self.version = opened.version
        self.row_id = opened.row_id
        self.write = opened.write
        self.rows = opened.rows
        self.publish = opened.publish
        self.all_rows = opened.all_rows
        self._opened = opened
        self._progress = progress
        self.share = share

    @property
    def scratch(self) -> Path:
        """A directory for checkpoints that outlives a crash of this step."""
        return self._opened.scratch

    def missing(self, chunks: Iterable[Item]) -> Iterator[tuple[int, Item]]:
        """The chunks of its share that are not committed yet, with their numbers."""
        for number, chunk in enumerate(chunks):
            if number in self.share and number not in self._opened.done:
                yield number, chunk

    def written(self) -> set[int]:
        """The chunks that are there by now, whoever wrote them."""
        return self._opened.written()

    def pending(self, chunk: int) -> bool:
        """Whether this chunk is still to be written."""
        return chunk not in self._opened.done

    def say(self, sentence: str) -> None:
        """Tell the user something worth knowing."""
        reporter().said(sentence)
        log("step.said", run=current_run(), version=self.version, kind=self.kind, note=sentence)

    def progress(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Show that `done` of `total` units are through, and, in a few words, how it is going."""
        reporter().advanced(done, total, unit, note)
        self._progress.update(done / total if total else 1.0, note)


@overload
def step(  # pyright: ignore[reportOverlappingOverload] ("models" is the one kind that is not a dataset)
    kind: Literal["models"], *, title: str, expects: Callable[..., int]
) -> Callable[[Callable[Concatenate[Out, P], None]], Callable[P, ModelRef]]: ...
@overload
def step(
    kind: str, *, title: str, expects: Callable[..., int]
) -> Callable[[Callable[Concatenate[Out, P], None]], Callable[P, DatasetRef]]: ...
def step(
    kind: str, *, title: str, expects: Callable[..., int]
) -> Callable[[Callable[Concatenate[Out, P], None]], Callable[P, Any]]:
    """Make a step of a function that writes rows of `kind`.

    The version is a digest of the step's name, its code version (everything it calls), its
    parameters and the versions of the references among its arguments. `title`: the task run's name,
    a format string over the parameters; `expects`: how many rows it will write, at most, from the
    same parameters (for `dapflow plan`).
    """

    def decorate(function: Callable[Concatenate[Out, P], None]) -> Callable[P, Any]:
        signature = inspect.signature(function)
        signature = signature.replace(
            parameters=list(signature.parameters.values())[1:], return_annotation=Ref
        )

        def bind(*args: P.args, **kwargs: P.kwargs) -> Call:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return Call.of(kind, title, function, bound.arguments)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            ref, state = _run(bind(*args, **kwargs), function)
            return Completed(name="Cached", data=ref) if state == "cached" else ref

        run.__signature__ = signature  # type: ignore[attr-defined]
        name = function.__name__.replace("_", " ")
        prefect_task: Any = task(
            cast("Any", run),
            name=name,
            task_run_name=title,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            if (planned := _plan.get()) is not None:
                bound = bind(*args, **kwargs)
                planned.append(replace(bound, rows=expects(**bound.arguments)))
                return bound.ref(planned[-1].rows)
            result = prefect_task(*args, **kwargs)
            return result.result() if isinstance(result, State) else result

        return call

    return decorate


def _run(call: Call, function: Callable[..., None]) -> tuple[Ref, Literal["run", "cached"]]:
    lake, started = current_lake(), time.monotonic()
    reporter().started(call.title)
    ids = {"run": current_run(), "flow_run": flow_run.id, "task_run": task_run.id}
    ids |= {"step": call.step, "title": call.title, "kind": call.kind, "version": call.version}
    log("step.started", **ids)
    try:
        ref, state = _complete(lake, call, function)
        publish_artifacts(lake, ref, call.step, call.code, call.parameters, call.parents)
    except BaseException as error:
        log(
            "step.failed",
            **ids,
            note=f"{type(error).__name__}: {error}"[:1000],
            seconds=round(time.monotonic() - started, 3),
        )
        _forget_locals(error)
        raise
    seconds = time.monotonic() - started
    log(
        "step.cached" if state == "cached" else "step.done",
        **ids,
        rows=ref.rows,
        seconds=round(seconds, 3),
    )
    reporter().finished(
        StepRecord(
            name=call.title,
            version=call.version,
            kind=call.kind,
            state=state,
            rows=ref.rows,
            seconds=seconds,
        )
    )
    return ref, state


def _forget_locals(error: BaseException | None) -> None:
    """Free what the frames of a failure hold, models above all: Prefect keeps the exception for as
    long as the flow runs.
    """
    seen = list[BaseException]()
    while error is not None and error not in seen:
        seen.append(error)
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _complete(
    lake: Lake, call: Call, function: Callable[..., None]
) -> tuple[Ref, Literal["run", "cached"]]:
    """The complete version of a call: as the lake has it, or made now."""
    ref, state = lake.find(call.version), "cached"
    if ref is None or not intact(lake, ref):
        with open_version(
            lake,
            kind=call.kind,
            version=call.version,
            step=call.step,
            code=call.code,
            parameters=call.parameters,
        ) as opened:
            if isinstance(opened, OpenVersion):
                progress, state = ProgressArtifact(call.title), "run"
                function(Out(opened, progress), **call.arguments)
                progress.update(1.0)
                ref = opened.complete(call.parents, current_run() or flow_run.id, task_run.id)
                track_version(lake, ref)
            else:
                ref = opened
    assert state in ("cached", "run")
    return ref, state


def _parents(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in arguments.items():
        if isinstance(value, Ref):
            yield name, value.version
        elif _holds_refs(value):
            yield from ((f"{name}[{place}]", ref.version) for place, ref in enumerate(value))


def _holds_refs(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Ref) for item in value)


def _plain(value: Any) -> Any:
    """The JSON form of a parameter, the same in every process, less what a model's MACHINE names:
    what decides nothing of the result.

    A model whose settings name files has `content`, which tells their digests.
    """
    if isinstance(value, BaseModel):
        content = value.content() if isinstance(value, NamesFiles) else {}
        return value.model_dump(mode="json", exclude=getattr(value, "MACHINE", None)) | content
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), (
        f"{value!r} cannot be a parameter of a step"
    )
    return value
