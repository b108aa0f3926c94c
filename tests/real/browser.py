"""Real Chromium without a window, driven over WebDriver's HTTP by Debian's ``chromedriver``."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.real.tools import installed

Found = TypeVar("Found")

PATIENCE = 90.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_STALE = ("stale element reference", "no such element")


class WebDriverError(Exception):
    """The driver or the browser refused; ``kind`` is WebDriver's word for why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Browser:
    """A browser with one tab.  A context manager.

    Args:
        folder: Where its profile and what it writes are.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "chromedriver.log").open("wb")
        environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
        self._driver = subprocess.Popen(
            [installed("chromedriver"), "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        self._session = ""
        try:
            self._url = f"http://127.0.0.1:{self._port()}"
            self._open(folder)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and its driver."""
        if self._session:
            self._ask("DELETE", "")
        self._driver.terminate()
        try:
            self._driver.wait(PATIENCE)
        finally:
            self._driver.kill()
            self._driver.wait()
            if self._driver.stdout is not None:
                self._driver.stdout.close()
            self._log.close()

    def go(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """What a function body of JavaScript returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> Element:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return Element(self, found[_ELEMENT])

    def find_all(self, selector: str) -> list[Element]:
        found = self._ask("POST", "/elements", {"using": "css selector", "value": selector})
        return [Element(self, each[_ELEMENT]) for each in found]

    def focused(self) -> Element:
        return Element(self, self._ask("GET", "/element/active")[_ELEMENT])

    def press(self, *keys: str) -> None:
        """Press keys (WebDriver's code points for those without a sign) together, and let them go."""
        down = [{"type": "keyDown", "value": key} for key in keys]
        up = [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [*down, *up]}]})

    def prefer(self, scheme: str) -> None:
        """Let pages believe that the user likes ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        asked = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._ask("POST", "/goog/cdp/execute", asked)

    def screenshot(self) -> bytes:
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def complaints(self) -> list[str]:
        """What the browser logged as errors since it was asked last."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [each["message"] for each in entries if each["level"] == "SEVERE"]

    def wait(self, what: str, condition: Callable[[], Found | None]) -> Found:
        """Wait until ``condition`` gives something true; elements that are not there yet, or no longer, do no harm."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = condition()
            except WebDriverError as problem:
                if problem.kind not in _STALE:
                    raise
                found = None
            if found:
                return found
            if time.monotonic() > deadline:
                shown = self.run("return document.body.innerText")
                raise AssertionError(f"{what} does not happen within {PATIENCE:g} s; the page says:\n{shown}")
            time.sleep(0.05)

    def _open(self, folder: Path) -> None:
        options = {
            "binary": installed("chromium"),
            "args": [
                "--headless=new",
                "--no-sandbox",  # tests run as root
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--no-proxy-server",
                "--window-size=1280,1000",
                f"--user-data-dir={folder / 'profile'}",
            ],
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if said := re.search(rb"started successfully on port (\d+)", line):
                # What it says later must not fill the pipe.
                threading.Thread(target=self._driver.stdout.read, daemon=True).start()
                return int(said[1])
        raise AssertionError("chromedriver ended before it listened")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        session = f"/{self._session}" if self._session else ""
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            f"{self._url}/session{session}{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE * 2) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as refused:
            with refused:
                value = json.load(refused)["value"]
            raise WebDriverError(value["error"], value["message"]) from None

    def ask_element(self, method: str, element: str, path: str, body: object = None) -> Any:
        return self._ask(method, f"/element/{element}{path}", body)


class Element:
    """An element of the page."""

    def __init__(self, browser: Browser, id: str) -> None:
        self._browser = browser
        self.id = id

    @property
    def text(self) -> str:
        return str(self._browser.ask_element("GET", self.id, "/text"))

    @property
    def label(self) -> str:
        """What a screen reader calls it."""
        return str(self._browser.ask_element("GET", self.id, "/computedlabel"))

    @property
    def is_shown(self) -> bool:
        return bool(self._browser.ask_element("GET", self.id, "/displayed"))

    @property
    def is_enabled(self) -> bool:
        return bool(self._browser.ask_element("GET", self.id, "/enabled"))

    def get(self, name: str) -> Any:
        return self._browser.ask_element("GET", self.id, f"/property/{name}")

    def attribute(self, name: str) -> str | None:
        value: str | None = self._browser.ask_element("GET", self.id, f"/attribute/{name}")
        return value

    def click(self) -> None:
        self._browser.ask_element("POST", self.id, "/click", {})

    def clear(self) -> None:
        self._browser.ask_element("POST", self.id, "/clear", {})

    def type(self, text: str) -> None:
        """Type into it; of an input for files, choose the file of this path."""
        self._browser.ask_element("POST", self.id, "/value", {"text": text})
