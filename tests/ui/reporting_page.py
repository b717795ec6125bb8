"""A page with nothing but the report and the tree of tensors, served as the tab is: behind the guard, with its
script and style."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import fastapi
import gradio as gr
import uvicorn

from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.progress import Progress
from lib_toolkit.reports.tensor_tree import rows_of, tree_html
from lib_toolkit.ui import compat, reporting
from lib_toolkit.ui.assets import SCRIPT, STYLE, read_asset
from lib_toolkit.ui.drafts import stamp_of
from lib_toolkit.ui.guard import LOOPBACK, Guard


def page_of(path):
    """The page for one model. ``report`` makes its report, ``tell`` puts HTML into the status, ``poll`` counts."""
    asked = []

    def report():
        made = reporting.make(path, stamp_of(path), Progress())
        with open_model(path) as model:
            tree = tree_html(rows_of(model, identify(model)))
        return [made.summary_html, str(made.html_path), str(made.json_path), reporting.OPEN_REPORT, tree]

    def poll():
        asked.append(1)
        again = "" if len(asked) % 3 == 0 else f'<p data-model-toolkit-step="{len(asked)}">{len(asked)}</p>'
        return again or f"<p>asked {len(asked)} times</p>"

    with compat.blocks() as page:
        clicks = gr.Textbox("0", label="Clicks of the host's button", elem_id="clicks")
        refresh = gr.Button("Host's refresh", elem_id="refresh_sd_vae")
        compat.on(refresh, "click", lambda before: str(int(before) + 1), [clicks], [clicks])
        with gr.Column(elem_id="model_toolkit"):
            words = gr.Textbox(label="HTML", elem_id="words")
            tell = gr.Button("Tell", elem_id="tell")
            status = gr.HTML("", elem_id="model_toolkit_status")
            progress = gr.HTML("", elem_id="model_toolkit_progress")
            ask = gr.Button("Ask", elem_id="model_toolkit_poll", elem_classes=["model-toolkit-hidden"])
            start = gr.Button("Report", elem_id="model_toolkit_report")
            view = gr.HTML(reporting.NO_REPORT, elem_id="model_toolkit_report_view")
            with gr.Row():
                html = gr.File(label="Report (HTML)", interactive=False, elem_id="model_toolkit_report_html")
                data = gr.File(label="Report (JSON)", interactive=False, elem_id="model_toolkit_report_json")
            opener = gr.HTML("", elem_id="model_toolkit_report_open")
            tree = gr.HTML("", elem_id="model_toolkit_tensors")
        compat.on(start, "click", report, [], [view, html, data, opener, tree])
        compat.on(tell, "click", lambda text: [text, text], [words], [status, progress])
        compat.on(ask, "click", poll, [], [progress])
    return page


@contextmanager
def serving_page(path):
    """Serve it on a free port of this computer, as the standalone server would, and give its address."""
    head = f"<style>{read_asset(STYLE)}</style><script>{read_asset(SCRIPT)}</script>"
    options = compat.accepted(gr.mount_gradio_app, theme=compat.theme(), ssr_mode=False)
    mounted = gr.mount_gradio_app(fastapi.FastAPI(), page_of(path), path="/", **options)
    application = Guard(mounted, head, LOOPBACK)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
