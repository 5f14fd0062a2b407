"""`@step` itself: what becomes of a call in a run and in a plan."""

import inspect
import time
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, cast, overload

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run
from prefect.states import Completed

from dapflow.storage import DatasetRef, Lake, ModelRef, OpenVersion, Ref
from dapflow.storage.files import intact
from dapflow.storage.logs import log
from dapflow.storage.runs import current_run
from dapflow.storage.versions import Opening, open_version
from dapflow.tasks.step.artifacts import ProgressArtifact, publish_artifacts
from dapflow.tasks.step.call import Call, Declared
from dapflow.tasks.step.context import current_lake, planned
from dapflow.tasks.step.out import Out
from dapflow.tasks.step.progress import StepRecord, reporter
from dapflow.tasks.step.tracking import track_version
from dapflow.tasks.step.work import Activity, Work, no_model_work

P = ParamSpec("P")


@overload
def step(  # pyright: ignore[reportOverlappingOverload] ("models" is the one kind that is not a dataset)
    kind: Literal["models"],
    *,
    title: str,
    expects: Callable[..., int],
    activity: Activity,
    work: Callable[..., Work] = no_model_work,
) -> Callable[[Callable[Concatenate[Out, P], None]], Callable[P, ModelRef]]: ...
@overload
def step(
    kind: str,
    *,
    title: str,
    expects: Callable[..., int],
    activity: Activity,
    work: Callable[..., Work] = no_model_work,
) -> Callable[[Callable[Concatenate[Out, P], None]], Callable[P, DatasetRef]]: ...
def step(
    kind: str,
    *,
    title: str,
    expects: Callable[..., int],
    activity: Activity,
    work: Callable[..., Work] = no_model_work,
) -> Callable[[Callable[Concatenate[Out, P], None]], Callable[P, Any]]:
    """Make a step of a function that writes rows of `kind`.

    The version is a digest of the step's name, its code version (everything it calls), its
    parameters and the versions of the references among its arguments.

    title: the task run's name, a format string over the parameters.
    expects: how many rows it will write, at most, from the same parameters (for `dapflow plan`).
    activity: what it does; written down with every version.
    work: how much of it, at most, from the same parameters; none for a step without a model.
    """
    declared = Declared(kind=kind, title=title, expects=expects, activity=activity, work=work)

    def decorate(function: Callable[Concatenate[Out, P], None]) -> Callable[P, Any]:
        signature = inspect.signature(function)
        signature = signature.replace(
            parameters=list(signature.parameters.values())[1:], return_annotation=Ref
        )

        def bind(*args: P.args, **kwargs: P.kwargs) -> Call:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return Call.of(declared, function, bound.arguments)

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
            if (calls := planned()) is not None:
                calls.append(bind(*args, **kwargs).planned(declared))
                return calls[-1].ref
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
            Opening(
                kind=call.kind,
                version=call.version,
                step=call.step,
                activity=call.activity,
                code=call.code,
                parameters=call.parameters,
            ),
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
