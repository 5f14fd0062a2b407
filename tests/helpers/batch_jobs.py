"""The batch interface of the server on loopback (servers.py): files, jobs, and everything that can
go wrong with them, on purpose.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
Answer = Callable[[Body], tuple[int, Body]]


@dataclass
class Batches:
    """What the server holds, and how it misbehaves. `fates`, one a batch: "completed" (when left
    out), "expired", "failed", or how else it is to be called; lines end well unless `line_fate`
    says of one, by its custom id and how often it came: "expired", "500", "garbage" or "400"."""

    fates: list[str] = field(default_factory=list)
    line_fate: Callable[[str, int], str | None] = lambda key, times: None
    bodies: Callable[[Body], Body | None] = lambda body: (
        None
    )  # an answer of status 200 in place of the server's own
    looks: int = 1  # at a job, before it has ended
    lose_submissions: int = 0  # so many are accepted, and the connection cut before anybody is told
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Body] = field(default_factory=dict)
    came: dict[str, int] = field(default_factory=dict)  # how often a custom id was submitted

    def get(self, path: str, answer: Answer) -> Body | bytes | None:
        """What is at a path; None where nothing is."""
        if match := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return self.files.get(match[1])
        if path.startswith("/v1/batches?") or path == "/v1/batches":
            return {"object": "list", "data": list(reversed(self.jobs.values())), "has_more": False}
        if match := re.fullmatch(r"/v1/batches/([\w-]+)", path):
            return self._look(match[1], answer)
        return None

    def upload(self, content_type: str, data: bytes) -> Body:
        """A file of a multipart form."""
        boundary = content_type.partition("boundary=")[2].encode()
        [part] = [one for one in data.split(b"--" + boundary) if b'name="file"' in one]
        name = f"file-{len(self.files)}"
        self.files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return {
            "id": name,
            "object": "file",
            "bytes": len(data),
            "created_at": 0,
            "filename": "x.jsonl",
            "purpose": "batch",
            "status": "ok",
        }

    def create(self, body: Body) -> Body | None:
        """A job; None to cut the connection although it was accepted."""
        name = f"batch_{len(self.jobs)}"
        fate = self.fates.pop(0) if self.fates else "completed"
        self.jobs[name] = {
            "id": name, "object": "batch", "created_at": 0, "status": "validating", "fate": fate, "left": self.looks, **body,
        }  # fmt: skip
        for line in self.files[body["input_file_id"]].splitlines():
            key = json.loads(line)["custom_id"]
            self.came[key] = self.came.get(key, 0) + 1
        if self.lose_submissions:
            self.lose_submissions -= 1
            return None
        return self.jobs[name]

    def _look(self, name: str, answer: Answer) -> Body | None:
        job = self.jobs.get(name)
        if job is None or job["status"] not in ("validating", "in_progress"):
            return job
        job["left"] -= 1
        if job["left"] >= 0:
            job["status"] = "in_progress"
        else:
            self._end(job, answer)
        return job

    def _end(self, job: Body, answer: Answer) -> None:
        job["status"] = job["fate"]
        if job["fate"] == "failed":
            job["errors"] = {
                "object": "list",
                "data": [
                    {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}
                ],
            }
            return
        good, bad = list[str](), list[str]()
        lines = [json.loads(line) for line in self.files[job["input_file_id"]].splitlines()]
        for place, line in enumerate(reversed(lines)):  # in another order than they came
            key = line["custom_id"]
            expired = job["fate"] == "expired" and place % 2 == 0
            fate = "expired" if expired else self.line_fate(key, self.came[key])
            if fate == "expired":
                bad.append(
                    json.dumps(
                        {
                            "custom_id": key,
                            "response": None,
                            "error": {"code": "batch_expired", "message": "Too late."},
                        }
                    )
                )
            elif fate in ("400", "500"):
                response = {
                    "status_code": int(fate),
                    "body": {"error": {"message": f"line status {fate}"}},
                }
                bad.append(json.dumps({"custom_id": key, "response": response, "error": None}))
            elif fate == "garbage":
                good.append(f'{{"custom_id": "{key}", "respon')
            else:
                own = self.bodies(line["body"])
                status, body = (200, own) if own else answer(line["body"])
                response = {"status_code": status, "request_id": "r", "body": body}
                good.append(
                    json.dumps(
                        {"id": "x", "custom_id": key, "response": response, "error": None},
                        ensure_ascii=False,
                    )
                )
        for kind, some in (("output_file_id", good), ("error_file_id", bad)):
            if some:
                job[kind] = f"file-{len(self.files)}"
                self.files[job[kind]] = "\n".join(some).encode()
