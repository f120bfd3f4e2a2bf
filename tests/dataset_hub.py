"""A hub of one dataset on loopback: what huggingface_hub asks of huggingface.co, answered from memory."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@contextmanager
def hub(name: str, files: dict[str, bytes]) -> Iterator[str]:
    """Serve a dataset's files, all in its folder data/; yields the URL to set as HF_ENDPOINT."""
    handler = type("Handler", (_Handler,), {"name": name, "files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    name: str
    files: dict[str, bytes]

    def do_GET(self):
        path = self.path.partition("?")[0]
        api, resolve = f"/api/datasets/{self.name}", f"/datasets/{self.name}/resolve/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in self.files]
            self.reply(json.dumps({"id": self.name, "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"{api}/tree/{COMMIT}":
            self.reply(json.dumps([{"type": "directory", "path": "data", "oid": COMMIT, "size": 0}]).encode())
        elif path == f"{api}/tree/{COMMIT}/data":
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": self.oid(content)}
                for name, content in self.files.items()
            ]
            self.reply(json.dumps(rows).encode())
        elif (
            path.startswith(resolve) and (name := path.removeprefix(resolve).partition("/")[2]) in self.files
        ):
            self.reply(self.files[name])
        else:
            self.reply(b"", 404, "EntryNotFound" if path.startswith(resolve) else "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def reply(self, content, status=200, error=""):
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), "ETag": f'"{self.oid(content)}"'}
        headers |= {"X-Error-Code": error} if error else {"X-Repo-Commit": COMMIT}
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def oid(self, content):
        return hashlib.sha1(content).hexdigest()

    def log_message(self, *arguments):
        pass
