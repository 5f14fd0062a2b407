"""The lake's pages on the Prefect server: reports, the newest lineage page of a version, and nothing else; behind the server's password."""

import asyncio
import os
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from flows.served import pages


def write(file: Path, text: str, age: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (1_000_000 - age, 1_000_000 - age))


def answers(reports: Path, paths: list[str], password: str | None = None, auth: tuple[str, str] | None = None) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=Starlette(routes=pages(reports, password)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", follow_redirects=True, auth=auth) as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_a_version_leads_to_its_newest_page_and_its_links_work_from_there(tmp_path: Path) -> None:
    write(tmp_path / "aa" / "lineage" / "c0ffee.html", "the old page", age=60)
    write(tmp_path / "bb" / "lineage" / "c0ffee.html", "the new page", age=0)
    write(tmp_path / "bb" / "index.html", "the report", age=0)
    page, report, folder = answers(tmp_path, ["/lineage/c0ffee", "/reports/bb/index.html", "/reports/bb/"])
    assert (page.text, page.url.path) == ("the new page", "/reports/bb/lineage/c0ffee.html")
    assert report.text == folder.text == "the report"


def test_what_is_not_there_yet_is_said_and_nothing_but_reports_is_served(tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite").write_text("secret")
    write(tmp_path / "reports" / "aa" / "index.html", "the report", age=0)
    missing, *others = answers(
        tmp_path / "reports",
        ["/lineage/c0ffee", "/reports/../catalogue.sqlite", "/reports/%2e%2e/catalogue.sqlite", "/lineage/..%2f..", "/lineage/*"],
    )
    assert missing.status_code == 404
    assert "dapflow lineage c0ffee" in missing.text
    assert all(other.status_code == 404 and "secret" not in other.text for other in others)
    assert answers(tmp_path / "nowhere", ["/reports/aa/index.html"])[0].status_code == 404


@pytest.mark.parametrize(("auth", "status"), [(None, 401), (("ada", "wrong"), 401), (("ada", "lovelace"), 200)])
def test_where_the_server_asks_for_a_password_the_pages_do(auth: tuple[str, str] | None, status: int, tmp_path: Path) -> None:
    write(tmp_path / "aa" / "lineage" / "c0ffee.html", "the page", age=0)
    for found in answers(tmp_path, ["/reports/aa/lineage/c0ffee.html", "/lineage/c0ffee"], "ada:lovelace", auth):
        assert found.status_code == status
        assert ("the page" in found.text) == (status == 200)
