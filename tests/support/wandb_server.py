"""A minimal W&B server: it accepts runs, records requests, and can stop answering."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BUCKET = {
    "id": "run", "name": "run1", "displayName": "run", "config": "{}", "historyLineCount": 0,
    "project": {"id": "project", "name": "afqmc", "entity": {"id": "entity", "name": "me"}},
}  # fmt: skip
_ANSWERS = {
    "upsertBucket": {"bucket": _BUCKET, "inserted": True},
    "createRunFiles": {"runID": "run", "uploadHeaders": [], "files": []},
    "project(name:": None,  # a project without artifacts
    "viewer": {"id": "user", "flags": "{}", "username": "me", "entity": "me", "teams": {"edges": []}},
}


class WandbServer:
    """Serves on a local port. While ``silent`` is set, requests about runs get no answer and stay open."""

    def __init__(self) -> None:
        self.silent = threading.Event()
        self.code = 200  # status of the answer to GET and HEAD requests
        self.requests = []
        self.history = []  # offset and number of rows of each upload, of all runs
        self.rows = {}  # number of uploaded rows by run id
        self.refusing = False  # whether new runs are refused
        self.ends = []  # exit codes of finished runs
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._closed = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self):
        """Return the environment variables of a logged-in user."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}

    def variables(self, mutation):
        """Return the variables of each GraphQL request so far that contains the mutation."""
        return [request["variables"] for request in self.requests if mutation in request["query"]]

    def close(self):
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _stored_run(self, run):
        """Return what a client needs to resume a run, or None for a new run."""
        if run not in self.rows:
            return None
        rows = self.rows[run]
        tail = json.dumps([json.dumps({"_step": rows - 1, "_runtime": 1})])
        lines = {"historyLineCount": rows, "eventsLineCount": 0, "logLineCount": 0}
        begun = {"wandbConfig": json.dumps({"t": 1}), "config": "{}"}  # without these, the run counts as not started
        rest = {"summaryMetrics": "{}", "historyTail": tail, "eventsTail": "[]", "tags": []}
        return {**_BUCKET, "name": run, **lines, **begun, **rest}

    def _store_stream(self, run, streamed):
        if "exitcode" in streamed:
            self.ends.append(streamed["exitcode"])
        if "wandb-history.jsonl" in (files := streamed.get("files") or {}):
            chunk = files["wandb-history.jsonl"]
            self.history.append((chunk["offset"], len(chunk["content"])))
            self.rows[run] = max(self.rows.get(run, 0), sum(self.history[-1]))

    def _handler(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if outer.silent.is_set():
                    outer._closed.wait()
                    return
                if self.path != "/graphql":
                    if self.path.endswith("/file_stream"):
                        outer._store_stream(self.path.split("/")[-2], json.loads(body))
                    self._answer({})
                    return
                request = json.loads(body)
                outer.requests.append(request)
                data = {name.partition("(")[0]: answer for name, answer in _ANSWERS.items() if name in request["query"]}
                if outer.refusing:
                    data.pop("upsertBucket", None)
                if "upsertBucket" in data:
                    data["upsertBucket"] = {
                        "bucket": {**_BUCKET, "name": request["variables"]["name"]},
                        "inserted": True,
                    }
                if "model(name:" in request["query"]:
                    data["model"] = {**_BUCKET["project"], "bucket": outer._stored_run(request["variables"]["name"])}
                self._answer({"data": data} if data else {"errors": [{"message": "not known here"}]})

            do_PUT = do_POST

            def do_HEAD(self):
                self._answer({}, outer.code)

            do_GET = do_HEAD

            def _answer(self, content, code=200):
                text = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            def log_message(self, *_):
                pass

        return Handler
