"""The HTTP service: answers, batching, limits, access, logs, shutdown, and the page in a browser."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from helpers import PATIENCE_S, PYTHON, command, environment

pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'afqmc[serve]'")

import afqmc
from afqmc.comparison.wrong_examples import wrong_dev_pairs

TOKEN = "a-token-of-the-tests"
SENTENCES = [
    f"{start}{middle}{end}" for start in ("花呗", "借呗") for middle in ("怎么", "如何") for end in ("还款", "开通")
]
PAIRS = [(first, second) for first in SENTENCES for second in SENTENCES]
MANY = PAIRS * 300  # half a minute of work, one by one


class Service:
    """``afqmc serve`` in a process; ``log`` has the rows of its log, complete after ``stop``."""

    def __init__(self, run_dir, *options, python=PYTHON, **variables):
        self.process = subprocess.Popen(
            [python, "-m", "afqmc.serve", str(run_dir), "--port", "0", *options],
            env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines = []
        self.reader = threading.Thread(target=lambda: [self.lines.append(line) for line in self.process.stderr])
        self.reader.start()
        self.first_line = self.process.stdout.readline()
        self.port = int(re.search(r":(\d+) ", self.first_line)[1])
        while not self.is_ready():
            assert self.process.poll() is None, self.lines
            time.sleep(0.01)

    def send(self, method, path, body=None, **headers):
        """Send a request and return the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        if isinstance(body, dict):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content_Type", "application/json")
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection

    def call(self, method, path, body=None, **headers):
        """Return the status, the headers and the body, decoded if it is JSON."""
        connection = self.send(method, path, body, **headers)
        try:
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, response.headers, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()

    def is_ready(self):
        try:
            return self.call("GET", "/ready")[0] == 200
        except ConnectionRefusedError:
            return False

    def predict(self, pairs):
        status, _, answer = self.call("POST", "/predict", {"pairs": pairs})
        assert status == 200, answer
        return answer["predictions"]

    def metric(self, name):
        text = self.call("GET", "/metrics")[2]
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])

    def stop(self, signum=signal.SIGTERM):
        """Send a signal, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.process.wait(PATIENCE_S)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode

    @property
    def log(self):
        return [json.loads(line) for line in self.lines if line.startswith("{")]


@pytest.fixture(scope="module")
def service(small_run):
    service = Service(small_run.path)
    yield service
    service.stop()


@pytest.fixture
def start(small_run):
    """Return a function that starts a service with options; all are stopped."""
    services = []

    def start(*options, **more):
        services.append(Service(small_run.path, *options, **more))
        return services[-1]

    yield start
    for service in services:
        service.stop()


def test_answers_are_those_of_predict(service, small_run):
    """However requests are batched: single pairs and lists, one after another and concurrently."""
    expected = [row["probability"] for row in afqmc.load(small_run.path).predict(PAIRS)]
    assert [row["probability"] for row in service.predict(PAIRS)] == pytest.approx(expected, abs=1e-5)
    before = service.metric("afqmc_batch_pairs_count")
    sizes = [1, 3, 2, 7] * 5
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    parts = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    with ThreadPoolExecutor(len(parts)) as pool:
        answers = list(pool.map(lambda part: service.predict(PAIRS[part]), parts))
    for part, rows in zip(parts, answers, strict=True):
        assert [row["probability"] for row in rows] == pytest.approx(expected[part], abs=1e-5)
        assert {*rows[0]} == {"logits", "probability", "prediction"} if rows else True
    assert service.metric("afqmc_batch_pairs_count") - before <= len(parts)
    assert service.metric("afqmc_waiting_pairs") == 0


def test_explanation_is_that_of_the_predictor(service, small_run):
    status, _, answer = service.call("POST", "/explain", {"pair": PAIRS[1]})
    expected = afqmc.load(small_run.path).explain(*PAIRS[1])
    assert status == 200
    assert [word["word"] for word in answer["words"]] == [word.word for word in expected.words]
    contributions = [word["contribution"] for word in answer["words"]]
    assert contributions == pytest.approx([word.contribution for word in expected.words], abs=1e-5)


def test_documented_client(service, capsys):
    """The example of the documentation prints a label and a probability per pair."""
    text = (Path(__file__).parents[2] / "docs/deployment.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(example.replace(":8000/", f":{service.port}/"), {})
    assert [line.split()[0] in "01" for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_model_and_probes(service):
    model = service.call("GET", "/model")[2]
    assert 0 < model.pop("threshold") < 1
    assert model | {"version": ""} == {"labels": ["0", "1"], "max_length": 128, "version": "", "engine": "torch"}
    assert service.call("GET", "/health")[::2] == (200, {"status": "ok"})
    assert service.call("GET", "/ready")[::2] == (200, {"status": "ready"})


def test_engine(start, small_run):
    """The log and ``/model`` name the engine, and answers are those of ``predict`` with it."""
    service = start("--engine", "torch-bf16")
    assert service.call("GET", "/model")[2]["engine"] == "torch-bf16"
    expected = afqmc.load(small_run.path, engine="torch-bf16").predict(PAIRS)
    probabilities = [row["probability"] for row in expected]
    assert [row["probability"] for row in service.predict(PAIRS)] == pytest.approx(probabilities, abs=1e-5)
    service.stop()
    (loaded,) = (row for row in service.log if row["event"] == "loaded")
    assert (loaded["engine"], loaded["reason"]) == ("torch-bf16", "engine: torch-bf16")


def test_documentation_needs_no_other_server(service):
    """The pages load nothing from elsewhere, and OpenAPI describes the endpoints."""
    openapi = service.call("GET", "/openapi.json")[2]
    assert {"/predict", "/explain", "/model", "/health", "/ready", "/metrics", "/examples"} == {*openapi["paths"]}
    for path in ("/", "/docs"):
        _, headers, page = service.call("GET", path)
        assert not re.search(r"(src|href)=.?(https?:)?//", page)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
    assert "POST /predict" in page


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 422, "body"),
        ('{"pairs": [', 422, "not valid JSON"),
        ("[" * 100_000, 400, "parsing the body"),
        ({}, 422, "pairs: Field required"),
        ({"pairs": []}, 422, "at least 1 item"),
        ({"pairs": [["a", "b"]], "labels": 1}, 422, "labels: Extra inputs"),
        ({"pairs": [["a", "b"], ["a"]]}, 422, "pairs[1][1]: Field required"),
        ({"pairs": [["a", "b", "c"]]}, 422, "pairs[0]: Tuple should have at most 2 items"),
        ({"pairs": [["a", 1]]}, 422, "pairs[0][1]: Input should be a valid string"),
        ({"pairs": ["ab"]}, 422, "pairs[0]: Input should be a valid tuple"),
        ({"pairs": [["a", "b"], ["a", " "]]}, 422, "pairs[1]: must be two texts that are not empty"),
        ({"pairs": [["a", "\ud83d"]]}, 422, "pairs[0]: 'sentence2' has half a character"),
        ({"pairs": [["a\0", "b"]]}, 422, "pairs[0]: 'sentence1' contains a NUL"),
        ({"pairs": [["\x01", "b"]]}, 422, "only invisible characters"),
        ({"pairs": [["a" * 10_001, "b"]]}, 422, "pairs[0]: at most 10000 characters"),
        ({"pairs": [["a", "b"]] * 1025}, 413, "at most 1024 per request"),
        ({"pairs": [["a" * 4_200_000, "b"]]}, 413, "Content-Length: at most 4194304 bytes"),
        ((b"x" * 1_000_000 for _ in range(5)), 413, "Too Large"),
    ],
)
def test_invalid_bodies_have_one_answer(service, body, status, error):
    """The answer names what is wrong. It does not repeat the body, and has no traceback or path."""
    answer = service.call("POST", "/predict", body)
    assert answer[0] == status
    assert {*answer[2]} == {"error"}
    assert error in answer[2]["error"]
    assert len(answer[2]["error"]) < 200
    assert not re.search(r"Traceback|/\w+/", answer[2]["error"])


def test_control_characters_and_long_sentences_are_predicted(service, small_run):
    """They are cut and cleaned as by ``predict``."""
    pairs = [("a\x01\x1b[31m", "b\u202e"), ("花" * 10_000, "呗")]
    expected = [row["probability"] for row in afqmc.load(small_run.path).predict(pairs)]
    assert [row["probability"] for row in service.predict(pairs)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (("GET", "/predict"), 405),
        (("GET", "/etc/passwd"), 404),
        (("POST", "/predict", "pairs=1", "application/x-www-form-urlencoded"), 415),
        (("POST", "/explain", {"pair": ["花" * 201, "b"]}), 413),
        (("POST", "/explain", {"pair": ["a", ""]}), 422),
    ],
)
def test_other_requests_have_one_answer(service, request_, status):
    method, path, *rest = request_
    kind = {"Content_Type": rest[1]} if len(rest) > 1 else {}
    answer = service.call(method, path, rest[0] if rest else None, **kind)
    assert (answer[0], {*answer[2]}) == (status, {"error"})


def test_names_of_other_machines_are_refused(service):
    """A web site whose name resolves to this machine cannot read answers."""
    assert service.call("GET", "/examples", Host="rebound.example")[0] == 421
    for host in ("localhost", f"127.0.0.1:{service.port}", "[::1]:80"):
        assert service.call("GET", "/examples", Host=host)[0] == 200


def test_many_connections(service):
    """Requests on 200 parallel connections are answered while 200 others send nothing."""
    idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(200)]
    connections = [service.send("POST", "/predict", {"pairs": PAIRS[:1]}) for _ in range(200)]
    assert {connection.getresponse().status for connection in connections} == {200}
    for connection in [*idle, *connections]:
        connection.close()


def test_token(start):
    """Without it, only the page, the documentation and the probes are available; they have no data."""
    service = start("--host", "0.0.0.0", AFQMC_SERVE_TOKEN=TOKEN)
    body = {"pairs": PAIRS[:1]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        status, answer_headers, answer = service.call("POST", "/predict", body, **headers)
        assert (status, answer_headers["WWW-Authenticate"], {*answer}) == (401, "Bearer", {"error"})
        assert service.call("GET", "/metrics", **headers)[0] == service.call("GET", "/examples", **headers)[0] == 401
    assert {service.call("GET", path)[0] for path in ("/", "/page.js", "/docs", "/health", "/ready")} == {200}
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert service.call("POST", "/predict", body, **right, Host="any.example")[0] == 200
    service.stop()
    assert TOKEN not in "".join([*service.lines, service.first_line])


def test_full_queue_and_kill(start):
    """A request that does not fit gets 429 with Retry-After. After a kill, a waiting request fails visibly."""
    service = start("--queue", str(len(MANY)), "--max-batch", "1")
    waiting = service.send("POST", "/predict", {"pairs": MANY})
    while service.metric("afqmc_waiting_pairs") == 0:
        pass
    status, headers, answer = service.call("POST", "/predict", {"pairs": MANY})
    assert (status, answer) == (429, {"error": "the queue is full"})
    assert int(headers["Retry-After"]) >= 1
    service.stop(signal.SIGKILL)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        waiting.getresponse()


def test_time_limit(start):
    """A request that waits too long gets 504; a body that does not arrive, 408."""
    service = start("--timeout", "0.5", "--queue", str(len(MANY)), "--max-batch", "1")
    status, _, answer = service.call("POST", "/predict", {"pairs": MANY})
    assert (status, answer) == (504, {"error": "no answer in time"})
    assert service.metric("afqmc_waiting_pairs") == 0
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_shutdown_answers_waiting_requests(start):
    """After SIGTERM, requests in the queue are answered, new connections are refused, and the exit code is 143."""
    service = start("--max-batch", "1")
    waiting = [service.send("POST", "/predict", {"pairs": MANY[:300]}) for _ in range(3)]
    while service.metric("afqmc_waiting_pairs") + service.metric("afqmc_pairs_total") <= 600:
        pass  # until all three have arrived
    service.process.terminate()
    answers = [connection.getresponse() for connection in waiting]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [len(json.loads(answer.read())["predictions"]) for answer in answers] == [300, 300, 300]
    for connection in waiting:
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        service.call("GET", "/health")
    assert service.stop() == 143


def test_log_has_no_texts(start):
    """Each line is a JSON object. Sentences are logged with ``--log-texts`` only, and paths only if they are known."""
    for options, expected in (((), False), (("--log-texts",), True)):
        service = start(*options)
        service.predict([("秘密", "呗")])
        service.call("GET", "/predict/%E7%A7%98%E5%AF%86?a=%E7%A7%98%E5%AF%86")
        service.call("POST", "/predict", {"pairs": [["秘密", ""]]})
        service.stop()
        requests = [row for row in service.log if row["event"] == "request"]
        assert [(row["path"], row["status"], row.get("pairs")) for row in requests] == [
            ("/predict", 200, 1), ("(unknown)", 404, None), ("/predict", 422, 1),
        ]  # fmt: skip
        assert [row.get("texts") for row in requests[:1]] == [[["秘密", "呗"]] if expected else None]
        assert expected or "秘密" not in json.dumps(service.log, ensure_ascii=False)
        assert [line for line in service.lines if not line.startswith("{")] == ["terminated\n"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: other machines can reach it, so a token is needed"),
        (["--port", "70000"], "--port 70000: must be between 0 and 65535"),
        (["--max-batch", "0"], "--max-batch 0: must be between 1 and 512"),
        (["--timeout", "nan"], "--timeout nan: must be between 0.1 and 3600"),
        (["--host", "256.0.0.1"], "--host 256.0.0.1: "),
        (["--token-file", "missing"], "--token-file missing: cannot be read"),
        (["--token-file", "short"], "the token must have at least 16"),
    ],
)
def test_invalid_options_are_refused(small_run, tmp_path, options, message):
    (tmp_path / "short").write_text("secret")
    done = command("serve", str(small_run.path), *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_unusable_runs_and_ports_are_refused(small_run, tmp_path):
    """One message, as from predict, and exit code 2."""
    shutil.copytree(small_run.path, tmp_path / "incomplete")
    shutil.rmtree(tmp_path / "incomplete/checkpoints/best")
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        for arguments in (["incomplete"], ["missing"], [str(small_run.path), "--port", port]):
            done = command("serve", *arguments, cwd=tmp_path)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"--port {port}: cannot be used (Address already in use)" in done.stderr


def test_wrong_dev_pairs(small_run, tmp_path):
    """Those that the run recorded, the most confident first; without the data, the reason in both languages."""
    examples, missing = wrong_dev_pairs(small_run.path)
    rows = [json.loads(line) for line in (small_run.path / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    assert missing is None
    assert len(examples) == min(50, sum(row["prediction_decided"] != row["label"] for row in rows))
    assert all(example["label"] != example["prediction"] for example in examples)
    positive = [(example["probability"], example["prediction"] == "1") for example in examples]
    confidence = [probability if is_positive else 1 - probability for probability, is_positive in positive]
    assert confidence == sorted(confidence, reverse=True)
    shutil.copytree(small_run.path, tmp_path / "run")
    os.remove(tmp_path / "run/predictions/dev.jsonl")
    examples, missing = wrong_dev_pairs(tmp_path / "run")
    assert (examples, missing[0]) == ([], "predictions/dev.jsonl: missing")
    assert re.search("[一-龥]", missing[1])
    os.remove(tmp_path / "run/summary.json")
    assert wrong_dev_pairs(tmp_path / "run") == ([], ("the run is not complete", "运行尚未完成"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_page(service, small_run):
    """It follows the browser's language, shows predictions of both orders, words and examples, and texts as text."""
    browser = Browser()
    try:
        for language, title, width in (("zh-CN", "预测一个句对", 390), ("en-US", "Predict a pair of sentences", 1280)):
            browser.emulate(width=width, language=language, dark=width < 600)
            browser.open(f"http://127.0.0.1:{service.port}/")
            browser.until("document.querySelectorAll('#examples tr').length > 1")
            assert browser.js("document.querySelector('h1').textContent") == title
            browser.type("#sentence1", "花呗<b>怎么</b>还款")
            browser.type("#sentence2", "如何还花呗<script>alert(1)</script>")
            browser.click("#predict")
            browser.until("document.querySelectorAll('#words span').length > 10")
            assert browser.js("document.querySelectorAll('.order').length") == 2
            assert browser.js("document.querySelectorAll('#words b, #words script').length") == 0
            assert browser.js("document.querySelector('#words div').textContent") == "花呗<b>怎么</b>还款"
            assert browser.js("document.documentElement.scrollWidth") <= width
            engine = {
                "zh-CN": "引擎：torch。句对最多 128 个词元",
                "en-US": "Engine: torch. Pairs are cut to 128 tokens.",
            }
            assert engine[language] in browser.js("document.querySelector('#about').textContent")
            assert browser.js("document.querySelector('#truncated').hidden")
            browser.type("#sentence1", "怎么还款" * 32)  # more tokens than the run reads, and few enough to explain
            browser.click("#predict")
            browser.until("document.querySelectorAll('#words span').length > 100")
            note = {
                "zh-CN": "该句对已被截断：超过 128 个词元",
                "en-US": "This pair was cut: it has more than 128 tokens.",
            }
            assert note[language] in browser.js("document.querySelector('#truncated').textContent")
            assert not browser.js("document.querySelector('#truncated').hidden")
            assert browser.js("document.documentElement.scrollWidth") <= width
            browser.type("#sentence1", "花呗<b>怎么</b>还款")
            browser.click("#predict")
            browser.until("document.querySelector('#truncated').hidden")
        expected = afqmc.load(small_run.path).predict([("花呗<b>怎么</b>还款", "如何还花呗<script>alert(1)</script>")])
        shown = browser.js("document.querySelector('.order').textContent")
        assert f"{expected[0]['probability']:.1%}" in shown
        browser.click("#language")
        assert browser.js("document.querySelector('h1').textContent") == "预测一个句对"
        browser.click("#theme")
        assert browser.js("document.documentElement.dataset.theme") == "dark"
        assert browser.complaints == []
        assert {url.split("/")[2] for url in browser.requests} == {f"127.0.0.1:{service.port}"}
    finally:
        browser.close()


def test_page_asks_for_the_token(start):
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    service, browser = start(AFQMC_SERVE_TOKEN=TOKEN), Browser()
    try:
        browser.emulate()
        browser.open(f"http://127.0.0.1:{service.port}/")
        browser.until("!document.querySelector('#access').hidden")
        browser.type("#token", TOKEN)
        browser.click("#token-form button")
        browser.until("document.querySelector('#access').hidden")
        browser.until("document.querySelectorAll('#examples tr').length > 1")
    finally:
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_workers_share_a_port_and_metrics(start, signum, code):
    """Two processes answer; the metrics are sums; SIGTERM and SIGINT stop all of them."""
    service = start("--workers", "2")
    while len([row for row in service.log if row["event"] == "loaded"]) < 2:
        pass
    for number in range(40):
        service.predict(PAIRS[number : number + 1])
    assert service.metric("afqmc_pairs_total") >= 40
    assert service.stop(signum) == code
    pids = {row["pid"] for row in service.log if row["event"] == "request" and row["status"] == 200}
    assert len(pids) == 2
    assert len([row for row in service.log if row["event"] == "stopped"]) == 2
