"""Drive a headless Chromium over its DevTools pipe, without a port, a driver or another package."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# the sandbox needs permissions that a container lacks; only pages written by the tests are opened, from disk
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run")
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio")
_TIMEOUT_S = 120  # seconds; an idle machine needs one


class Browser:
    """One window; ``complaints`` has the errors and warnings of its page, ``requests`` its network requests."""

    def __init__(self):
        self._home = tempfile.mkdtemp(prefix="afqmc-chromium-")
        command = [
            CHROMIUM,
            *_FLAGS,
            *_QUIET,
            f"--user-data-dir={self._home}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        # Chromium reads its commands from descriptor 3 and answers on 4
        self._process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" 3<&0 4>&1 2>/dev/null', "sh", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        self.complaints, self.requests, self._loaded = [], [], False
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        """Send a DevTools command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            read = self._process.stdout.read1(1 << 20)
            assert read, "Chromium has exited"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        self._note(found := json.loads(message))
        return found

    def _note(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:1000])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(parameters["args"])[:1000])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def emulate(self, width=1280, height=900, dark=False, language="en-US"):
        """Set the window size, color scheme and language for the next page."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        agent = self("Browser.getVersion")["userAgent"]
        self("Network.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        self("Emulation.setLocaleOverride", locale=language)

    def open(self, page: Path | str):
        """Open a page from disk, or by its address, and wait until it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self._loaded = False
        self("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not self._loaded:
            self._next()

    def js(self, expression):
        """Evaluate an expression in the page, and await it if it is a promise."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, json.dumps(found["exceptionDetails"])[:2000]
        return found["result"].get("value")

    def until(self, expression):
        """Wait until an expression is true."""
        since = time.monotonic()
        while not self.js(f"!!({expression})"):
            assert time.monotonic() - since < _TIMEOUT_S, f"never: {expression}"
            time.sleep(0.05)

    def click(self, selector):
        """Scroll to an element and click its center."""
        self.js(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        self.drag([self.js(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")])

    def drag(self, points):
        """Press the mouse at the first point of the window, move it to the others, and release it."""
        for kind, (x, y) in [("mousePressed", points[0]), *(("mouseMoved", point) for point in points[1:])]:
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        x, y = points[-1]
        self("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """Replace the text of a field."""
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.js(f"document.querySelector({json.dumps(selector)}).focus({{preventScroll: true}})")
        self("Input.insertText", text=text)

    def choose(self, selector, value):
        """Set the value of a select element, or of a checkbox."""
        name = "checked" if isinstance(value, bool) else "value"
        self.js(
            f"{{ const one = document.querySelector({json.dumps(selector)}); one.{name} = {json.dumps(value)};"
            " one.dispatchEvent(new Event('change')); }"
        )

    def screenshot(self, path: Path, full_page=False):
        """Save a PNG of the window, or of the whole page."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=full_page)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        """Close the browser and delete its profile."""
        self._session = None
        try:
            self("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
        shutil.rmtree(self._home, ignore_errors=True)
