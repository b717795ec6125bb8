"""Serve a fake WebUI: ``python -m tests.fakehost --flavour a1111 --data-dir D --port N --extension ROOT [flags]``.

Further flags are the host's own (``--share`` is parsed and then not obeyed: nothing leaves this computer). Prints
one line when it serves, and one after each Reload UI; ends by SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from tests.fakehost import forge_gradio, page
from tests.fakehost.flavours import FLAVOURS
from tests.fakehost.host import FakeHost
from tests.fakehost.scripts import hide_extension


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakehost", allow_abbrev=False)
    parser.add_argument("--flavour", choices=FLAVOURS, default="a1111")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--extension", type=Path, action="append", default=[])
    own, flags = parser.parse_known_args()
    data_dir = own.data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    roots = [root.resolve() for root in own.extension]
    hide_extension()
    with tempfile.TemporaryDirectory(prefix="fakehost-") as home:
        os.chdir(home)  # the host's own folder, which is neither the data folder nor the extension's
        host = FakeHost(own.flavour, data_dir, ["--data-dir", str(data_dir), "--port", str(own.port), *flags], roots)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: host.shared.state.request_stop())
        if host.flavour.forge and page.MAJOR == 4:
            forge_gradio.install()
        with host.planted():
            host.start()
            _serve(host)
        os.chdir(data_dir)


def _serve(host: FakeHost) -> None:
    told = "serves"
    while True:
        host.script_callbacks.before_ui_callback()
        host.shared.demo = demo = page.build(host)
        page.put_scripts_on_the_page(host)
        if not host.cmd_opts.no_gradio_queue:
            demo.queue(64)
        app = _launched(host, demo)
        host.script_callbacks.app_started_callback(demo, app)
        print(
            f"Fake {host.flavour.name} with Gradio {gr.__version__} {told} http://127.0.0.1:{host.cmd_opts.port}",
            flush=True,
        )
        command = ""
        while not command:
            command = host.shared.state.wait_for_server_command(timeout=5)
        demo.close(verbose=False)
        if command == "stop":
            return
        time.sleep(0.5)
        host.reload()
        told = "serves again"


def _launched(host: FakeHost, demo: Any) -> Any:
    options = page.accepted(
        demo.launch,
        prevent_thread_lock=True,
        quiet=True,
        show_api=False,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        app_kwargs={"docs_url": "/docs", "redoc_url": "/redoc"},
        allowed_paths=page.allowed_paths(host),
        root_path=f"/{host.cmd_opts.subpath}" if host.cmd_opts.subpath else "",
    )
    name = host.cmd_opts.server_name or ("0.0.0.0" if host.cmd_opts.listen else "127.0.0.1")
    with contextlib.redirect_stdout(io.StringIO()):  # Gradio 3 says where it runs even when it shall be quiet
        app, _, _ = demo.launch(
            share=False, inbrowser=False, server_name=name, server_port=host.cmd_opts.port, **options
        )
    # The hosts take Gradio's open CORS away, and answer this to a page that waits for the new server.
    app.user_middleware = [one for one in app.user_middleware if one.cls.__name__ != "CORSMiddleware"]
    app.add_api_route("/internal/ping", lambda: {}, methods=["GET"])
    app.router.routes.insert(0, app.router.routes.pop())
    return app


if __name__ == "__main__":
    main()
