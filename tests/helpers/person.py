"""A person at the labelling page, and what they prefer."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Person(threading.Thread):
    """Prefers the longer of two answers, on the page at a port; `asked` is what they have answered.
    They finish when nothing is left, or think about the next one for ever after `most` answers."""

    def __init__(self, port: int, most: int | None = None) -> None:
        super().__init__(daemon=True)
        self.asked: list[dict[str, Any]] = []
        self._port = port
        self._most = most
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._look()
            except (OSError, http.client.HTTPException):  # the page is not there yet, or no more
                time.sleep(0.05)

    def leave(self) -> None:
        self._over.set()
        self.join()

    def _look(self) -> None:
        state = self._call("GET", "/state")
        if "question" not in state or len(self.asked) == self._most:  # nothing is shown yet
            time.sleep(0.05)
        elif (question := state["question"]) is None:
            self._call("POST", "/finish", {})
            time.sleep(0.05)
        else:
            choice = "left" if len(question["left"]) > len(question["right"]) else "right"
            self._call("POST", "/label", {"key": question["key"], "choice": choice, "seconds": 0.1})
            self.asked.append(question)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json"},
            )
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def person(port: int, most: int | None = None) -> Iterator[Person]:
    somebody = Person(port, most)
    somebody.start()
    try:
        yield somebody
    finally:
        somebody.leave()
