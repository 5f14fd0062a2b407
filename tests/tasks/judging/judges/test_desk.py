"""The labelling page's server: only its own page may ask, and others only with the password."""

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dapflow.storage import Lake, UserError
from dapflow.storage.labels import Question, latest_labels
from dapflow.tasks.judging.judges.desk.server import PASSWORD, Desk, serve
from dapflow.tasks.judging.judges.desk.sitting import Sitting

QUESTION = Question.of("anna", None, "<b>Which?</b>", "<script>alert(1)</script>", "two")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def desk(lake: Lake) -> Iterator[Desk]:
    with serve(Desk(host="127.0.0.1", port=0)) as desk:
        desk.show(Sitting(lake, [QUESTION], None, 0, {}, grace=3600))
        yield desk


def ask(
    desk: Desk, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, Any]:
    """Status, headers and the body, as JSON where it is."""
    connection = http.client.HTTPConnection("127.0.0.1", desk.port)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(
        method, path, None if body is None else data, headers or (JSON if method == "POST" else {})
    )
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return (
        answer.status,
        answer.headers,
        json.loads(text) if answer.headers["Content-Type"] == "application/json" else text.decode(),
    )


def test_the_page_loads_nothing_from_outside_and_text_goes_as_json_only(desk: Desk) -> None:
    for path in ("/", "/page.css", "/page.js"):
        status, headers, text = ask(desk, "GET", path)
        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (
            "http://" not in text
            and "https://" not in text
            and "innerHTML" not in text
            and "Which?" not in text
        )
    status, headers, state = ask(desk, "GET", "/state")
    assert headers["Content-Type"] == "application/json"
    assert {state["question"]["left"], state["question"]["right"]} == {
        "<script>alert(1)</script>",
        "two",
    }
    assert ask(desk, "GET", "/../server.py")[0] == 404


def test_a_label_is_in_the_lake_when_the_answer_comes(desk: Desk, lake: Lake) -> None:
    status, _, state = ask(
        desk, "POST", "/label", {"key": QUESTION.key, "choice": "left", "seconds": 2.5}
    )
    assert (status, state["question"], state["progress"]["labelled"]) == (200, None, 1)
    assert latest_labels(lake, [QUESTION.key]).keys() == {QUESTION.key}
    assert ask(desk, "POST", "/label", {"key": QUESTION.key, "choice": "left"})[0] == 409
    assert ask(desk, "POST", "/undo", {})[0] == 200
    assert latest_labels(lake, [QUESTION.key]) == {}
    assert ask(desk, "POST", "/finish", {})[0] == 409


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"key": QUESTION.key, "choice": "both"}, JSON, 400),
        (["left"], JSON, 400),
        (b'{"half', JSON, 400),
        (b"x" * 5000, JSON, 400),
        ({"key": "another", "choice": "left"}, JSON, 409),
        (
            {"key": QUESTION.key, "choice": "left"},
            {"Content-Type": "text/plain"},
            415,
        ),  # as another site's form may send it
        (
            {"key": QUESTION.key, "choice": "left"},
            {**JSON, "Host": "evil.example"},
            403,
        ),  # a name that was made to point here
    ],
)
def test_what_the_page_would_not_send_changes_nothing(
    body: object, headers: dict[str, str], status: int, desk: Desk, lake: Lake
) -> None:
    assert ask(desk, "POST", "/label", body, headers)[0] == status
    assert latest_labels(lake, [QUESTION.key]) == {}


def test_where_others_can_reach_it_a_password_is_wanted(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(UserError, match=r"needs a password: set DAPFLOW_LABEL_PASSWORD"):
        Desk(host="0.0.0.0", port=0)
    monkeypatch.setenv(PASSWORD, "sésame")
    with serve(Desk(host="0.0.0.0", port=0)) as desk:
        desk.show(Sitting(lake, [QUESTION], None, 0, {}))
        for given in (
            None,
            "Basic " + base64.b64encode(b"me:guess").decode(),
            "Basic ???",
            "Bearer sesame",
        ):
            status, headers, _ = ask(
                desk, "GET", "/state", headers={"Authorization": given} if given else {}
            )
            assert (status, headers["WWW-Authenticate"][:5]) == (401, "Basic")
        assert ask(desk, "POST", "/undo", {}, JSON)[0] == 401
        right = {"Authorization": "Basic " + base64.b64encode("me:sésame".encode()).decode()}
        assert ask(desk, "GET", "/state", headers=right)[0] == 200


def test_a_port_that_is_taken_makes_way_for_another(desk: Desk, lake: Lake) -> None:
    with serve(Desk(host="127.0.0.1", port=desk.port)) as other:
        assert other.port != desk.port
