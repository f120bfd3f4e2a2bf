"""A server that speaks the Hugging Face hub's protocol as far as `huggingface_hub` needs it, on loopback.

Repositories with commits, downloads by revision, uploads through git LFS, tokens. Hashes are checked.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_of_the_test"
LFS_ABOVE = 4096  # bytes; the hub's own limit is larger


class Hub:
    """`with Hub() as hub`: hub.url is HF_ENDPOINT; hub.files("user/name") what a repository holds."""

    def __init__(self):
        self.repositories, self.blobs, self.requests = {}, {}, []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name, files):
        """Add files to a repository. Returns the commit."""
        repository = self.repositories.setdefault(name, {"commits": {}, "main": None})
        whole = {**repository["commits"].get(repository["main"], {}), **files}
        about = repr((repository["main"], sorted((k, hashlib.sha1(v).hexdigest()) for k, v in whole.items())))
        commit = hashlib.sha1(about.encode()).hexdigest()
        repository["commits"][commit], repository["main"] = whole, commit
        return commit

    def files(self, name):
        repository = self.repositories[name]
        return repository["commits"].get(repository["main"], {})

    def environment(self, home, token=TOKEN):
        """The variables of a process that uses this hub, and nothing of the user's."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return own | {"HF_HUB_OFFLINE": "0", "HF_TOKEN": token, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *about):
        pass

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path))
        if not (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)):
            return self.answer(404)
        name, revision, file = found.groups()
        if (repository := self.hub.repositories.get(name)) is None:
            return self.answer(401, X_Error_Code="RepoNotFound")
        commit = repository["main"] if revision == "main" else revision
        if (files := repository["commits"].get(commit)) is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if file not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        etag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
        self.answer(200, files[file], ETag=etag, X_Repo_Commit=commit)

    def do_PUT(self):
        content = self._content()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != oid:
            return self.answer(400)
        self.hub.blobs[oid] = content
        self.answer(200)

    def do_POST(self):
        content = self._content()
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            fields = json.loads(content)
            name = f"{fields.get('organization') or 'me'}/{fields['name']}"
            if not name.startswith("me/"):
                return self.answer(403, {"error": f"You don't have the rights to create {name}"})
            known = name in self.hub.repositories
            self.hub.repositories.setdefault(name, {"commits": {}, "main": None, "asked": fields})
            return self.answer(409 if known else 200, {"url": f"{self.hub.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer(200, {"transfer": "basic", "objects": self._objects(json.loads(content))})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            name, what = found.groups()
            return self.answer(200, getattr(self, f"_{what}")(name, content))
        self.answer(404)

    def _content(self):
        if length := self.headers.get("Content-Length"):
            return self.rfile.read(int(length))
        content = b""
        while size := int(self.rfile.readline(), 16):  # chunked
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _objects(self, batch):
        """Where LFS puts the files that are not there yet."""
        upload = {"upload": {"href": f"{self.hub.url}/lfs/"}}
        return [
            one
            | (
                {}
                if one["oid"] in self.hub.blobs
                else {"actions": {"upload": {"href": upload["upload"]["href"] + one["oid"]}}}
            )
            for one in batch["objects"]
        ]

    def _preupload(self, name, content):
        files = json.loads(content)["files"]
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > LFS_ABOVE else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
        }

    def _commit(self, name, content):
        """An operation a line."""
        files = {}
        for line in content.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        commit = self.hub.commit(name, files)
        return {
            "success": True,
            "commitOid": commit,
            "commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
            "hookOutput": "",
        }
