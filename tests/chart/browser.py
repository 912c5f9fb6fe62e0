"""A headless browser without network, driven by its DevTools protocol."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websocket import WebSocket, create_connection

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "chrome-headless-shell")
"""As scripts/browser looks for it."""
DEADLINE = 60.0
"""Seconds for a page to be drawn, on a busy machine."""
SIZE = (1280, 720)


def find_browser() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """A page that is open."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._calls = 0
        self.said: list[str] = []
        """What the page has told the console, exceptions and refused requests."""
        self.asked: list[str] = []
        """The URLs it has asked for."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._calls += 1
        number = self._calls
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv())
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])
            self._note(told.get("method"), told.get("params"))

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(params)[:2000])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    def open(self, path: Path, *, until: str) -> None:
        """Open a file, and wait until the expression is true."""
        self.call("Page.navigate", url=path.as_uri())
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait, frame by frame, until the expression is true."""
        self.evaluate(
            f"""new Promise((done, failed) => {{
              const deadline = Date.now() + {1000 * DEADLINE};
              (function look() {{
                let found = false;
                try {{ found = {until}; }} catch (error) {{ found = false; }}
                if (found) done(true);
                else if (Date.now() > deadline) failed(new Error("not within the deadline"));
                else setTimeout(look, 20);
              }})();
            }})"""
        )

    def evaluate(self, expression: str) -> Any:
        told = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, (expression, told["exceptionDetails"])
        return told["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


@contextmanager
def browser() -> Iterator[Page]:
    """An empty page. Skips the test where there is no browser: scripts/browser fetches one."""
    program = find_browser()
    if program is None:
        pytest.skip("no headless browser: scripts/browser, or apt install chromium-headless-shell")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                program,
                "--headless",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),  # it has none for root
                "--disable-gpu",
                "--disable-dev-shm-usage",  # 64 MB in containers
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--window-size={SIZE[0]},{SIZE[1]}",
                "--hide-scrollbars",
                f"--user-data-dir={folder}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Debian's program is a script around the browser
        )
        try:
            yield _connected(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _connected(process: "subprocess.Popen[str]") -> Page:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"DevTools listening on (ws://\S+)", line):
            break
    else:
        raise AssertionError(f"the browser did not start: {''.join(lines)}")
    socket = create_connection(found[1], timeout=DEADLINE + 10, suppress_origin=True)
    socket.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
    [target] = [
        each
        for each in json.loads(socket.recv())["result"]["targetInfos"]
        if each["type"] == "page"
    ]
    socket.close()
    address = found[1].split("/devtools/")[0] + f"/devtools/page/{target['targetId']}"
    return Page(create_connection(address, timeout=DEADLINE + 10, suppress_origin=True))
