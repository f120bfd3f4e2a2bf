"""A page in a real headless Chromium, driven over its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import websocket

NAME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BOX = "document.querySelector('{}').getBoundingClientRect()"


@contextlib.contextmanager
def browser(folder):
    """The DevTools address of a browser whose profile is in a folder."""
    port = folder / "DevToolsActivePort"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
    ]
    process = subprocess.Popen(
        [NAME, *options, "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 60
        while not (port.exists() and port.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < limit, "Chromium does not start"
            time.sleep(0.05)
        number, path = port.read_text().split("\n")[:2]
        yield f"ws://127.0.0.1:{number}{path}"
    finally:
        with contextlib.suppress(psutil.Error):
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    each.kill()
        process.wait()


class Page:
    """A file or an address in a tab of its own.

    `errors`: those of its console; `requests`: addresses that it asked for.
    """

    def __init__(self, address, file, width=1200, height=900, touch=False):
        self.numbers, self.errors, self.requests = itertools.count(1), [], []
        self.socket = websocket.create_connection(address, timeout=60)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        url = file if str(file).startswith("http://") else Path(file).absolute().as_uri()
        self.call("Page.navigate", url=url)
        limit = time.monotonic() + 60
        while not self("document.readyState === 'complete' && location.protocol !== 'about:'"):
            assert time.monotonic() < limit, "the page does not load"
            time.sleep(0.05)
        self("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()

    def call(self, method, **parameters):
        """A command's result; events that come before it are noted."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _note(self, event):
        told = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"])
        if event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(told["args"])
        if event["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"])
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def __call__(self, script):
        """The value of a JavaScript expression; of a promise, what it was kept with."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, x, y, click=False):
        """Move the mouse there, and press its button."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") * click:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        time.sleep(0.3)

    def screenshot(self, file, selector="body"):
        """A PNG of an element, whole, wherever it is on the page."""
        sides = "({x, y, width, height}) => [x + scrollX, y + scrollY, width, height]"
        box = self(f"({sides})({BOX.format(selector)})")
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        image = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        Path(file).write_bytes(base64.b64decode(image))
