"""A step with its arguments, and the version that follows from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from dapflow.storage import DatasetRef, ModelRef, Ref, version_digest
from dapflow.tasks.step.code_version import code_version
from dapflow.tasks.step.work import NO_WORK, Activity, Contents, Work


@runtime_checkable
class NamesFiles(Protocol):
    """Settings that stand for more than they say: the digests of the files that they name."""

    def content(self) -> dict[str, str]: ...


@runtime_checkable
class HoldsRefs(Protocol):
    """A value that groups references: they become parents, each in a role of its own."""

    def refs(self, role: str) -> Mapping[str, Ref]: ...


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What stands beside a step: `@step(...)`."""

    kind: str
    title: str
    expects: Callable[..., int]
    activity: Activity
    work: Callable[..., Work]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A step with its arguments, and the version that follows from them: known before anything is
    run.
    """

    kind: str
    step: str
    activity: Activity
    title: str
    version: str
    code: str
    parameters: Mapping[str, Any]
    parents: Mapping[str, str]
    arguments: Mapping[str, Any]
    rows: int = 0  # that it will write, at most; known when it is planned, as is its work
    work: Work = NO_WORK

    @classmethod
    def of(
        cls, declared: "Declared", function: Callable[..., None], arguments: Mapping[str, Any]
    ) -> "Call":
        """The call of `function` with these arguments: references become parents, everything else a
        parameter.
        """
        name, code = function.__name__, code_version(function.__module__)
        refs = {key: _refs_in(key, value) for key, value in arguments.items()}
        parents = {role: ref.version for held in refs.values() for role, ref in held.items()}
        held = {key: value for key, value in arguments.items() if not refs[key]}
        parameters = {key: plain(value) for key, value in held.items()}
        return cls(
            kind=declared.kind,
            step=name,
            activity=declared.activity,
            title=declared.title.format(**arguments),
            version=version_digest(name, code, parameters, parents),
            code=code,
            parameters=parameters,
            parents=parents,
            arguments=arguments,
        )

    def planned(self, declared: "Declared") -> "Call":
        """The same with what it will write and do, at most."""
        return replace(
            self, rows=declared.expects(**self.arguments), work=declared.work(**self.arguments)
        )

    @property
    def contents(self) -> Contents:
        """What its rows are, at most."""
        return self.work.makes or Contents(rows=self.rows, prompts=self.rows)

    @property
    def ref(self) -> Ref:
        """The reference that the step returns when it has written as many rows as are planned."""
        made = ModelRef if self.kind == "models" else DatasetRef
        return made(self.kind, self.version, self.rows)


def _refs_in(name: str, value: Any) -> Mapping[str, Ref]:
    """The references that an argument is or holds, by their roles."""
    if isinstance(value, Ref):
        return {name: value}
    if isinstance(value, HoldsRefs):
        return value.refs(name)
    if isinstance(value, list | tuple) and any(isinstance(item, Ref) for item in value):
        return {f"{name}[{place}]": ref for place, ref in enumerate(value)}
    return {}


def plain(value: Any) -> Any:
    """The JSON form of a parameter, the same in every process, less what a model's MACHINE names:
    what decides nothing of the result.

    A model whose settings name files has `content`, which tells their digests.
    """
    if isinstance(value, BaseModel):
        content = value.content() if isinstance(value, NamesFiles) else {}
        settings: Any = value.model_dump(mode="json", exclude=getattr(value, "MACHINE", None))
        return [*settings, content] if isinstance(settings, list) else settings | content
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), (
        f"{value!r} cannot be a parameter of a step"
    )
    return value
