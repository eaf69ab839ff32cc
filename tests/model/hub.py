"""Local Hugging Face hub with one model: the endpoints that a fetch needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

REPOSITORY = "org/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "f" * 40
REVISIONS = ("main", "v1", COMMIT)


@contextmanager
def serve_hub(folder: Path) -> Iterator[str]:
    """Serve the files of `folder` as REPOSITORY at COMMIT; the address to put into HF_ENDPOINT.

    A branch or tag moves on to a commit without files as soon as it was asked for once.
    """
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    class Handler(_Handler):
        content = files
        moved: ClassVar[set[str]] = set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    content: ClassVar[dict[str, bytes]]
    moved: ClassVar[set[str]]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        for revision in REVISIONS:
            if path == f"api/models/{REPOSITORY}/revision/{revision}":
                return self._send(json.dumps(self._info(revision)).encode(), with_body=with_body)
            if path.startswith(f"api/models/{REPOSITORY}/tree/{revision}"):
                return self._send(json.dumps(self._tree()).encode(), with_body=with_body)
            name = path.removeprefix(f"{REPOSITORY}/resolve/{revision}/")
            if name in self.content:
                return self._send(self.content[name], with_body=with_body)
        return self._send(b"{}", with_body=with_body, status=404, error="RepoNotFound")

    def _info(self, revision: str) -> dict[str, object]:
        commit = LATER if revision in self.moved else COMMIT
        self.moved.update({revision} - {COMMIT})
        return {"id": REPOSITORY, "sha": commit, "siblings": [{"rfilename": name} for name in self.content]}

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.content.items()
        ]

    def _send(self, body: bytes, *, with_body: bool, status: int = 200, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
