"""A stand-in for the Hugging Face hub, on this machine: repositories in memory, one branch each."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote


class Hub(ThreadingHTTPServer):
    """The hub; `repositories` has the files of each, by name."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.private = {}, set()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            hub.repositories.setdefault(repo_id, {})
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(repo_id)
            return self._answer(200, {"url": f"{hub.endpoint}/{repo_id}"})
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        repo_id, action = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main.*", self.path
        ).groups()
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                hub.repositories[repo_id][line["value"]["path"]] = content
        oid = hashlib.sha1(body).hexdigest()
        address = f"{hub.endpoint}/{repo_id}/commit/{oid}"
        return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": address})

    def do_GET(self):
        if self.path.startswith(("/api/datasets/", "/datasets/")):
            return self._give_data_set()
        place = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        files = self.server.repositories.get(place[1]) if place else None
        if files is None:
            return self._answer(401, X_Error_Code="RepoNotFound", X_Error_Message="no such one")
        if place[2] not in files:
            return self._answer(404, X_Error_Code="EntryNotFound", X_Error_Message="no such file")
        content = files[place[2]]
        tag = hashlib.sha1(content).hexdigest()
        return self._answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=tag)

    def _give_data_set(self):
        """Files of a data set, whose repository is named `datasets/USER/NAME@BRANCH`."""
        path = unquote(self.path.partition("?")[0])
        listing = re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)(?:/revision/(.+))?", path)
        place = re.fullmatch(r"/(datasets/[^/]+/[^/]+)/resolve/(main|branch-\w+)/(.+)", path)
        repositories = self.server.repositories
        if listing is not None:
            branch = "main" if listing[2] is None else "branch-" + listing[2].rpartition("/")[2]
            files = repositories.get(f"{listing[1]}@{branch}")
            if files is None:
                return self._answer(401, X_Error_Code="RepoNotFound", X_Error_Message="no such one")
            siblings = [{"rfilename": name} for name in files]
            name = listing[1].removeprefix("datasets/")
            return self._answer(200, {"id": name, "sha": branch, "siblings": siblings})
        content = repositories[f"{place[1]}@{place[2]}"][place[3]]
        tag = hashlib.sha1(content).hexdigest()
        commit = hashlib.sha1(f"{place[1]}@{place[2]}".encode()).hexdigest()
        return self._answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=commit)

    def do_HEAD(self):
        self.do_GET()


@contextmanager
def running_hub():
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
