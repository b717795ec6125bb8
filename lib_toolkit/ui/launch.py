"""The standalone server: one page with the tab, on this computer only unless told otherwise.

Gradio's own launcher is not used: it probes its page through proxies, asks its makers for news and picks another
port when the wanted one is taken. Here the tab is mounted into an application of our own behind a guard.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_toolkit.ui.handouts import private_folder

# Before Gradio is imported anywhere: it reads these once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_TEMP_DIR"] = str(private_folder())

import fastapi
import gradio as gr
import uvicorn

from lib_toolkit import hosts
from lib_toolkit.errors import UsageError
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui import compat, tab
from lib_toolkit.ui.assets import SCRIPT, STYLE, read_asset
from lib_toolkit.ui.guard import LOOPBACK, Application, Guard
from lib_toolkit.ui.pruner import Pruner

_PAGE_STYLE = """
footer { display: none !important; }
.gradio-container { width: 100% !important; max-width: 1400px !important; margin: 0 auto; }
"""
"""The page around the tab, which is ours only here."""


def serve(models_dir: Path, host: str = "127.0.0.1", port: int = 7861) -> None:
    """Serve the tab until interrupted; running jobs are then cancelled and leave nothing behind.

    Raises UsageError when the folder cannot be used or the port is taken.
    """
    with _bound(host, port) as listening:
        jobs = Jobs()
        # The server gives the signal back to us when it has ended; its own end would leave the jobs where they are.
        signal.signal(signal.SIGTERM, _end)
        server = _server(models_dir, host, jobs)
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        print(f"Model Toolkit is at http://{shown}:{number} (Ctrl+C ends it).", file=sys.stderr)
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            jobs.close()


@contextmanager
def serving(models_dir: Path, jobs: Jobs | None = None) -> Iterator[str]:
    """Serve the tab from a thread, on a free port of this computer, while the block runs; gives its address."""
    jobs = jobs or Jobs()
    with _bound("127.0.0.1", 0) as listening:
        server = _server(models_dir, "127.0.0.1", jobs)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            jobs.close()
            server.should_exit = True
            thread.join(10)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"The tab cannot be served at {host}, port {port} ({getattr(error, 'strerror', None) or error}); "
            "end what runs there, or choose another one with --port."
        ) from None


def _server(models_dir: Path, address: str, jobs: Jobs) -> uvicorn.Server:
    host = hosts.detect(models_dir)
    pruner = Pruner(host, jobs)
    page = tab.build(host, jobs, pruner=pruner)
    allowed = LOOPBACK | {address.lower()} if address in LOOPBACK else None
    application = Guard(_mounted(page), _head(), allowed)
    pruner.started()
    return uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))


def _mounted(page: gr.Blocks) -> Application:
    application = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    options = compat.accepted(
        gr.mount_gradio_app,
        theme=compat.theme(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=0,
    )
    mounted: Application = gr.mount_gradio_app(application, page, path="/", **options)
    return mounted


def _head() -> str:
    return f"<style>{_PAGE_STYLE}\n{read_asset(STYLE)}</style><script>{read_asset(SCRIPT)}</script>"
