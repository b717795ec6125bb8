"""A fake WebUI in a process of its own, with the extension loaded as WebUIs load it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import gradio

from tests.ui.driving import Tab
from tests.ui.story import enter

OURS = ("Fake ", "Model Toolkit: ")
"""How the lines begin that may be printed: the fake WebUI's own and ours."""

GRADIO_3_HANGING_UP = re.compile(
    r"^ERROR: +Exception in ASGI application\n(?:(?!.*lib_toolkit).*\n)*?.*WebSocketDisconnect: \d+\n|^\d{4}\n",
    re.MULTILINE,
)
"""What Gradio 3 prints when a page is left while one of the WebUI's own buttons waits in its queue."""

FLAVOURS = {"3": ("a1111", "classic"), "4": ("forge", "neo")}.get(gradio.__version__.partition(".")[0], ("a1111",))
"""WebUIs that have this version of Gradio."""

QUEUES = ((), ("--no-gradio-queue",)) if gradio.__version__.startswith(("3.", "4.")) else ((),)
"""Flags with and without the queue, where there are WebUIs with this version of Gradio."""

ROOT = Path(__file__).parent.parent.parent


class WebUI:
    """A fake WebUI that runs: where it answers, where its models are, what it printed."""

    def __init__(self, data: Path, process: subprocess.Popen, port: int, console: Path):
        self.data, self.models, self.process, self.console = data, data / "models", process, console
        self.address = f"http://127.0.0.1:{port}"

    @property
    def printed(self) -> str:
        return self.console.read_text(encoding="utf-8", errors="replace")

    @property
    def noise(self) -> list[str]:
        """What was printed beyond the few lines that may be."""
        lines = GRADIO_3_HANGING_UP.sub("", self.printed).splitlines()
        return [line for line in lines if line.strip() and not line.startswith(OURS)]

    def enter(self, page) -> Tab:
        """The tab in a page, once it has listed the models."""
        tab = enter(page, self.address)
        tab.wait_for(" found")
        return tab

    def wait_until_it_answers(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 90
        while True:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, "the fake WebUI does not answer:\n" + self.printed
            try:
                opener.open(self.address, timeout=10).close()
                return
            except OSError:
                time.sleep(0.1)


@contextmanager
def fake_webui(data: Path, flavour: str, *flags: str):
    """Runs a fake WebUI with the extension on a data folder, in a process of its own, while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.fakehost", "--flavour", flavour, "--data-dir", str(data)]
    command += ["--port", str(port), "--extension", str(ROOT), *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    console = data / "console.txt"
    with console.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        webui = WebUI(data, process, port, console)
        webui.wait_until_it_answers()
        yield webui
        assert not webui.noise, "\n".join(webui.noise)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
