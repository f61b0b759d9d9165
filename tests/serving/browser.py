"""Chromium without a window, told what to do over its own protocol."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60


class Page:
    """One page, and the addresses that it asked for."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._number = connection, 0
        self.requested: list[str] = []

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=SECONDS))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def value(self, expression: str) -> Any:
        """Returns what an expression is in the page."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Waits until an expression is true, and returns it."""
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            if found := self.value(expression):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{expression} stayed {self.value(expression)!r}: {self.value('document.body.innerText')}")

    def drop(self, file: Path, element: str) -> None:
        """Drops a file on an element, as a hand with a mouse does."""
        box = self.value(f"JSON.stringify(document.querySelector({element!r}).getBoundingClientRect())")
        place = {"x": json.loads(box)["x"] + 20, "y": json.loads(box)["y"] + 20}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.tell("Input.dispatchDragEvent", type=kind, data=data, **place)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Opens an empty page; its profile lies in the folder."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    client = pytest.importorskip("websockets.sync.client", reason="what talks to a browser is not installed")
    if program is None:
        pytest.skip("no Chromium is installed")
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            give_up, found = time.monotonic() + SECONDS, None
            while found is None and process.poll() is None and time.monotonic() < give_up:
                found = re.search(r"ws://127\.0\.0\.1:\d+/\S+", (folder / "log").read_text())
                time.sleep(0.1)
            assert found is not None, (folder / "log").read_text()
            with client.connect(found[0], max_size=None) as connection:
                target = Page(connection).tell("Target.createTarget", url="about:blank")["targetId"]
            address = re.sub("/devtools/.*", f"/devtools/page/{target}", found[0])
            with client.connect(address, max_size=None) as connection:
                page = Page(connection)
                for domain in ("Page", "Runtime", "Network"):
                    page.tell(f"{domain}.enable")
                yield page
        finally:
            process.kill()
