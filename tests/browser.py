"""Pages in a real browser: headless Chromium, driven through chromedriver's own protocol.

Both are Debian packages (chromium, chromium-driver). Where they are not there, tests that need them
are skipped and say so.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
MISSING = "needs Chromium: apt-get install chromium chromium-driver"
_PATIENCE = 120  # seconds, for machines that do much else

_FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
]
_LOOK = """
const charts = [...document.querySelectorAll('.chart')];
const marks = chart => chart.querySelectorAll('svg path, svg rect, svg line').length;
return {
  wide: document.documentElement.scrollWidth, window: window.innerWidth,
  high: document.documentElement.scrollHeight, text: document.body.innerText.length,
  charts: charts.length, drawn: charts.filter(chart => marks(chart) > 10).length,
  chartOverflow: charts.filter(c => c.scrollWidth > c.clientWidth + 1).map(c => c.id),
  background: getComputedStyle(document.body).backgroundColor,
};
"""


class Browser:
    """One page after the other, at any width."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, verb: str, path: str, body: Any = None) -> Any:
        """One command of the WebDriver protocol."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=verb
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_PATIENCE) as answer:
            return json.load(answer)["value"]

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, page: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
        """What a page is like at a width, once its charts are drawn; console errors with it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._devtools("Emulation.setEmulatedMedia", features=scheme)
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask("POST", "/url", {"url": page.resolve().as_uri()})
        end = time.monotonic() + _PATIENCE
        while True:
            found = self.ask("POST", "/execute/sync", {"script": _LOOK, "args": []})
            if found["drawn"] == found["charts"] or time.monotonic() > end:
                break
            time.sleep(0.1)
        log = self.ask("POST", "/se/log", {"type": "browser"})
        errors = [entry["message"] for entry in log if entry["level"] == "SEVERE"]
        return {**found, "errors": errors}

    def picture(self, path: Path) -> None:
        """A picture of the whole page as it is now."""
        size = self._devtools("Page.getLayoutMetrics")["cssContentSize"]
        shot = self._devtools(
            "Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1}
        )
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile lies in a folder; it ends with the block."""
    assert CHROMIUM, MISSING
    assert DRIVER, MISSING
    log = folder / "driver.log"
    with log.open("wb") as out:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=out, stderr=subprocess.STDOUT)
    try:
        port = _port(log)
        plain = Browser(f"http://127.0.0.1:{port}")
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = plain.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        path = f"/session/{session['sessionId']}"
        try:
            yield Browser(f"http://127.0.0.1:{port}{path}")
        finally:
            plain.ask("DELETE", path)
    finally:
        driver.terminate()
        driver.wait(_PATIENCE)


def _port(log: Path) -> int:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        _, found, rest = log.read_text().partition("started successfully on port ")
        if found and "." in rest:
            return int(rest.partition(".")[0])
        time.sleep(0.05)
    raise TimeoutError(f"chromedriver did not start: {log.read_text()}")
