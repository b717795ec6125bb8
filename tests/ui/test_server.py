"""The standalone server: only its own page may use it, its page asks nobody else, and a taken port is said."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from lib_toolkit.errors import UsageError
from lib_toolkit.ui import assets
from lib_toolkit.ui.guard import POLICY


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=10)
    connection.putrequest(method, path, skip_host="host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.putheader("content-length", "0")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer, body


def test_the_page_carries_our_assets_and_no_links_to_strangers(server):
    answer, body = ask(server)
    assert answer.status == 200
    assert answer.getheader("content-security-policy") == POLICY
    assert assets.read_asset(assets.STYLE) in body
    assert assets.read_asset(assets.SCRIPT) in body
    head = body[: body.index("</head>")]
    for stranger in ("fonts.googleapis.com", "fonts.gstatic.com", "cdnjs.cloudflare.com"):
        assert stranger not in head
    assert 'src="http' not in head


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7861", "127.0.0.1.evil.example", ""])
def test_foreign_host_names_are_refused(server, host):
    answer, body = ask(server, host=host)
    assert answer.status == 403
    assert "<" not in body


def test_other_web_sites_are_refused(server):
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
    ):
        assert ask(server, "/run/predict", "POST", **headers)[0].status == 403
    assert ask(server, origin=server)[0].status == 200
    answer, _ = ask(server, "/config", origin=server)
    assert answer.getheader("access-control-allow-origin") is None


@pytest.mark.parametrize(
    "path",
    [
        "/file=/etc/hostname",
        "/gradio_api/file=/etc/hostname",
        "/file/etc/hostname",
        "/upload",
        "/gradio_api/upload",
        "/proxy=https://example.com/",
    ],
)
def test_routes_that_the_tab_does_not_need_are_closed(server, path):
    answer, body = ask(server, path)
    assert answer.status == 404
    assert body == "There is nothing here."


def test_a_taken_port_is_one_sentence(served_folder, models):
    from lib_toolkit.ui.launch import serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}.*--port"):
            serve(served_folder, "127.0.0.1", port)


def test_a_missing_folder_is_said(tmp_path):
    from lib_toolkit.ui.launch import serve

    with pytest.raises(UsageError, match="does not exist"):
        serve(tmp_path / "nowhere", "127.0.0.1", 0)


def test_assets_are_found_in_a_package_too(tmp_path, monkeypatch):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "style.css").write_text("packaged")
    monkeypatch.setattr(assets, "_PLACES", (tmp_path / "assets", tmp_path))
    assert assets.read_asset(assets.STYLE) == "packaged"


def test_every_selector_stays_inside_the_tab():
    style = re.sub(r"/\*.*?\*/", "", assets.read_asset(assets.STYLE), flags=re.DOTALL)
    style = re.sub(r"@keyframes model-toolkit-[\w-]+ \{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", style)
    style = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}", r"\1", style)
    selectors = [s.strip() for block in re.findall(r"([^{}]+)\{[^{}]*\}", style) for s in block.split(",")]
    assert len(selectors) > 40
    inside = re.compile(r"#model_toolkit(_\w+)?\b|:where\(#model_toolkit\) |\.model-toolkit-")
    assert all(inside.match(selector) for selector in selectors)
    assert not re.search(r"#[0-9a-f]{3,8}\b(?![^{]*\{)|rgba?\(|hsla?\(", re.sub(r"#model_toolkit\w*", "", style))


SERVE = """
import os, pathlib, signal, sys, threading, time
from lib_toolkit.ui import launch

jobs, models, told = launch.Jobs(), pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
launch.Jobs = lambda: jobs

def work(progress):
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        while True:
            progress.check()
            time.sleep(0.01)
    finally:
        told.write_text("ended")

threading.Timer(3, lambda: jobs.start("saving", work)).start()
launch.serve(models, port=int(sys.argv[3]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_server_that_is_ended_lets_its_work_clean_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "models").mkdir()
    command = [sys.executable, "-c", SERVE, str(tmp_path / "models"), str(tmp_path / "told"), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (tmp_path / "told").read_text() == "ended"
    assert done.returncode in {0, 128 + signal.SIGTERM}, done.stderr
    assert "Traceback" not in done.stderr


def test_telemetry_is_off(server):
    import gradio

    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert gradio.Blocks().analytics_enabled is False
