"""A headless Chromium, driven over its DevTools pipe: no port, no driver, no further package."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# its sandbox needs rights that a container does not give; only pages of ours are opened, from disk
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run")
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio")
_PATIENCE = 120  # seconds for what takes one on a quiet machine


class Browser:
    """One window; what its page complained of is in ``complaints``, what it asked of the network in ``requests``."""

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
        """A command of the protocol, and its result."""
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
            assert read, "Chromium is gone"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        self._note(found := json.loads(message))
        return found

    def _note(self, event):
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"])[:1000])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(told["args"])[:1000])
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def look(self, width=1280, height=900, dark=False, language="en-US"):
        """As what the next page is opened on: a laptop or a phone, light or dark, in a language."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        agent = self("Browser.getVersion")["userAgent"]
        self("Network.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        self("Emulation.setLocaleOverride", locale=language)

    def open(self, path: Path):
        """A page from disk, until it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self._loaded = False
        self("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._next()

    def js(self, expression):
        """What an expression in the page gives, promises waited for."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, json.dumps(found["exceptionDetails"])[:2000]
        return found["result"].get("value")

    def until(self, expression):
        """Wait until an expression holds."""
        since = time.monotonic()
        while not self.js(f"!!({expression})"):
            assert time.monotonic() - since < _PATIENCE, f"never: {expression}"
            time.sleep(0.05)

    def click(self, selector):
        """Where a person would click it."""
        self.js(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        self.drag([self.js(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")])

    def drag(self, places):
        """Press the mouse at the first place of the window, move on to the others, let go."""
        for kind, (x, y) in [("mousePressed", places[0]), *(("mouseMoved", place) for place in places[1:])]:
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        x, y = places[-1]
        self("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """Into a field, in place of what is there."""
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.js(f"document.querySelector({json.dumps(selector)}).focus({{preventScroll: true}})")
        self("Input.insertText", text=text)

    def choose(self, selector, value):
        """One of a list's options, or a tick."""
        name = "checked" if isinstance(value, bool) else "value"
        self.js(
            f"{{ const one = document.querySelector({json.dumps(selector)}); one.{name} = {json.dumps(value)};"
            " one.dispatchEvent(new Event('change')); }"
        )

    def picture(self, path: Path, whole=False):
        """A PNG of the window, or of the whole page."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        """End it, and remove what it kept."""
        self._session = None
        try:
            self("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
        shutil.rmtree(self._home, ignore_errors=True)
