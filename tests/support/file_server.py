"""A local HTTP server that fails on request: it cuts off, stalls, changes its file, or answers with errors."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """How one request is answered."""

    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    ranges: bool = False  # honour Range where If-Range names this version
    sends: int | None = None  # number of bytes after which the connection is closed
    hold: threading.Event | threading.Barrier | None = None  # if set, wait for it instead, then send the rest
    drip_s: float = 0.0  # pause after each byte
    chunked: bool = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answer = self.server.next_answer(self.headers)
        requested, version_of_part = self.headers.get("Range"), self.headers.get("If-Range")
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        start, headers, status = 0, dict(answer.headers), answer.status
        if requested and answer.ranges and version_of_part == version:
            start, status = int(requested.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
        self.send_response(status)
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(answer.body) - start)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        self.send(answer, start)

    def send(self, answer, start):
        end = len(answer.body) if answer.sends is None else answer.sends
        self.write(answer, answer.body[start:end])
        if answer.hold is not None:
            answer.hold.wait()
            self.write(answer, answer.body[max(start, end) :])
        if answer.chunked and (answer.sends is None or answer.hold is not None):
            self.wfile.write(b"0\r\n\r\n")

    def write(self, answer, content):
        self.server.sent += len(content)
        try:
            if answer.drip_s:
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if self.server.closing.wait(answer.drip_s):
                        return
            elif answer.chunked and content:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            else:
                self.wfile.write(content)
        except OSError:
            pass  # the client has closed the connection

    def log_message(self, *_):
        pass


class FileServer(ThreadingHTTPServer):
    """Gives its ``answers`` in order, and repeats the last one."""

    def __init__(self, handler=Handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.answers, self.requests, self.sent = [Answer()], [], 0
        self.closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def asked(self):
        return len(self.requests)

    def next_answer(self, headers):
        with self._lock:
            self.requests.append(headers)
            return self.answers[min(len(self.requests), len(self.answers)) - 1]


@contextmanager
def serving(server):
    """Serve in a thread; at the end, release all stalled answers."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        for answer in server.answers:
            if isinstance(answer.hold, threading.Event):
                answer.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
