"""The lake's pages on the Prefect server: reports, the newest lineage page of a version, and
nothing else; behind the server's password.

And what a locked database refuses is asked again, body and all, until it is answered.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dapflow.flows.server.prefect_server import Patient, pages


def write(file: Path, text: str, age: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (1_000_000 - age, 1_000_000 - age))


def answers(
    reports: Path,
    paths: list[str],
    password: str | None = None,
    auth: tuple[str, str] | None = None,
) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=Starlette(routes=pages(reports, password)))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", follow_redirects=True, auth=auth
        ) as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_a_version_leads_to_its_newest_page_and_its_links_work_from_there(tmp_path: Path) -> None:
    write(tmp_path / "aa" / "lineage" / "c0ffee.html", "the old page", age=60)
    write(tmp_path / "bb" / "lineage" / "c0ffee.html", "the new page", age=0)
    write(tmp_path / "bb" / "index.html", "the report", age=0)
    page, report, folder = answers(
        tmp_path, ["/lineage/c0ffee", "/reports/bb/index.html", "/reports/bb/"]
    )
    assert (page.text, page.url.path) == ("the new page", "/reports/bb/lineage/c0ffee.html")
    assert report.text == folder.text == "the report"


def test_what_is_not_there_yet_is_said_and_nothing_but_reports_is_served(tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite").write_text("secret")
    write(tmp_path / "reports" / "aa" / "index.html", "the report", age=0)
    missing, *others = answers(
        tmp_path / "reports",
        [
            "/lineage/c0ffee",
            "/reports/../catalogue.sqlite",
            "/reports/%2e%2e/catalogue.sqlite",
            "/lineage/..%2f..",
            "/lineage/*",
        ],
    )
    assert missing.status_code == 404
    assert "dapflow lineage c0ffee" in missing.text
    assert all(other.status_code == 404 and "secret" not in other.text for other in others)
    assert answers(tmp_path / "nowhere", ["/reports/aa/index.html"])[0].status_code == 404


@pytest.mark.parametrize(
    ("auth", "status"), [(None, 401), (("ada", "wrong"), 401), (("ada", "lovelace"), 200)]
)
def test_where_the_server_asks_for_a_password_the_pages_do(
    auth: tuple[str, str] | None, status: int, tmp_path: Path
) -> None:
    write(tmp_path / "aa" / "lineage" / "c0ffee.html", "the page", age=0)
    for found in answers(
        tmp_path, ["/reports/aa/lineage/c0ffee.html", "/lineage/c0ffee"], "ada:lovelace", auth
    ):
        assert found.status_code == status
        assert ("the page" in found.text) == (status == 200)


@pytest.mark.parametrize(("locked", "status", "calls"), [(0, 200, 1), (2, 200, 3), (9, 503, 4)])
def test_what_a_locked_database_refuses_is_asked_again_whole(
    locked: int, status: int, calls: int
) -> None:
    seen: list[bytes] = []

    async def create(request: Request) -> Response:
        seen.append(await request.body())
        if len(seen) <= locked:
            raise RuntimeError("database is locked")
        return PlainTextResponse("created")

    async def refuse(request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 503)

    async def ask() -> httpx.Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a long "
            yield b"form"

        app = Patient(
            Starlette(
                routes=[Route("/runs", create, methods=["POST"])],
                exception_handlers={Exception: refuse},
            ),
            tries=4,
        )
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/runs", content=parts())

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.text) == (
        status,
        "created" if status == 200 else "database is locked",
    )
    assert seen == [b"a long form"] * calls


def test_other_failures_are_passed_on_as_they_are() -> None:
    calls: list[str] = []

    async def fail(request: Request) -> Response:
        calls.append(request.url.path)
        raise ValueError("another fault")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Patient(Starlette(routes=[Route("/", fail)])))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/")

    with pytest.raises(ValueError, match="another fault"):
        asyncio.run(ask())
    assert calls == ["/"]
