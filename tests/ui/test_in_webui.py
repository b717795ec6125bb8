"""Bad input and bad luck in a WebUI, through the browser and past it: a sentence each time, nothing half-written."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from safetensors import safe_open

from lib_toolkit.hosts.settings import SETTINGS
from tests.ui.conftest import COPIED, fill
from tests.ui.fake_webui import FLAVOURS, ROOT, fake_webui
from tests.ui.story import go, pick, server_mark

BLOATED = "sd-demo-bloated.ckpt"
VAE = "demo.vae.safetensors"
LOADED = "loaded-in-the-webui.safetensors"

NEIGHBOUR = '''
"""Another extension: says which checkpoint the WebUI has loaded, and slows reading while a file named slow is there."""
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from modules import paths, sd_models

file = str(Path(paths.models_path) / "Stable-diffusion" / "loaded-in-the-webui.safetensors")
sd_models.model_data.sd_model = SimpleNamespace(sd_checkpoint_info=SimpleNamespace(filename=file))

switch = Path(paths.data_path) / "slow"
source = sys.modules["lib_toolkit.files"].SourceFile
usual = source.read_at


def read_at(self, offset, out):
    if len(out) > 100 and switch.exists():
        time.sleep(0.05)
    usual(self, offset, out)


source.read_at = read_at
'''


@pytest.fixture(scope="module")
def webui(tmp_path_factory):
    data = tmp_path_factory.mktemp("webui")
    neighbour = data / "extensions" / "neighbour" / "scripts"
    neighbour.mkdir(parents=True)
    (neighbour / "neighbour.py").write_text(NEIGHBOUR)
    with fake_webui(data, FLAVOURS[0]) as running:
        yield running


@pytest.fixture
def models(demo, webui):
    """The WebUI's folder with fresh models; its loaded checkpoint is one of them."""
    fill(webui.models, demo)
    shutil.copyfile(demo / "Stable-diffusion" / "sd-demo.safetensors", webui.models / "Stable-diffusion" / LOADED)
    yield webui.models
    (webui.data / "slow").unlink(missing_ok=True)


@pytest.fixture
def tab(browser, webui, models):
    page = browser.new_page()
    yield webui.enter(page)
    if not page.is_closed():
        page.close()


@pytest.fixture
def slow(webui):
    """Switches slow reading on: a save of a demo model takes many seconds."""
    return (webui.data / "slow").touch


def files(models):
    """Names and sizes."""
    return sorted((path.relative_to(models).as_posix(), path.stat().st_size) for path in models.rglob("*.*"))


def advanced(tab):
    pick(tab.part("tabs"), "Advanced")


def refused(tab, button, *words):
    """Press a button that has to be answered by a refusal in these words."""
    tab.click(button)
    for word in words:
        tab.wait_for(word)
    expect(tab.part("status").locator("[role=alert]")).to_have_count(1)


class Call:
    """What the page asks its server when a button is pressed, to be asked again past the page."""

    def __init__(self, tab, button):
        asked = []
        tab.page.on("request", lambda request: asked.append(request) if self._is_ours(request) else None)
        with tab.page.expect_request(self._is_ours):
            tab.click(button)
        tab.page.wait_for_timeout(500)  # a field that loses the focus may speak first
        self.address, self.body = urlsplit(asked[-1].url), asked[-1].post_data_json

    @staticmethod
    def _is_ours(request):
        """The WebUI's own buttons, and the question how a job goes, send fewer values."""
        return request.method == "POST" and "predict" in request.url and len(request.post_data_json["data"]) > 5

    def again(self, *changes, **headers):
        """Ask again with some values changed, each given as (old, new); the answer's text."""
        data = list(self.body["data"])
        for old, new in changes:
            data[next(n for n, value in enumerate(data) if isinstance(value, str) and value == old)] = new
        return self.send(data, **headers)

    def send(self, data, **headers):
        body = json.dumps({**self.body, "data": data})
        connection = http.client.HTTPConnection(self.address.netloc, timeout=60)
        connection.putrequest("POST", self.address.path, skip_host="host" in headers)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200, text
        return html_of(json.loads(text)["data"])


def html_of(values):
    """The texts among the values of an answer."""
    texts = [value.get("value") if isinstance(value, dict) else value for value in values]
    return "\n".join(text for text in texts if isinstance(text, str))


FORGED = ("../../etc/passwd", "/etc/passwd", "C:\\windows\\x.ckpt", "\x00", "x" * 100_000, "", None, 7, ["a"], {"a": 1})


def test_forged_values_open_and_write_nothing(webui, tab, models):
    """Any value in any field, posted straight to the page's API, gets an answer; the page works on."""
    tab.load(VAE)
    before = files(models)
    load = Call(tab, "load")
    label = next(value for value in load.body["data"] if isinstance(value, str) and VAE in value)
    for value in FORGED:
        assert 'role="alert"' in load.again((label, value)), value
    tab.load(VAE)
    advanced(tab)
    tab.choose(VAE, "import_source")
    call = Call(tab, "import")
    tab.wait_for(VAE, "edits")
    for place in range(1, len(call.body["data"])):
        for value in FORGED[::3]:
            data = list(call.body["data"])
            data[place] = value
            call.send(data)
    assert files(models) == before
    webui.enter(tab.page).load(VAE)


def test_forged_names_write_nothing(tab, models, tmp_path):
    tab.load(VAE)
    tab.write_name("whole")
    tab.wait_for("whole.safetensors", "saving")
    save = Call(tab, "save")
    tab.wait_for("Saved")
    advanced(tab)
    box = tab.part("export_name").locator("input, textarea").first
    box.fill("part")
    box.press("Tab")
    export = Call(tab, "export")
    tab.wait_for("Exported")
    before = files(models)
    outside = str(tmp_path / "out")
    for value in ("../x", "a/b", "a\\b", "con", "nul.safetensors", "x\x00y", "y" * 300, outside, "C:x", ".."):
        for call, known in ((save, "whole"), (export, "part")):
            assert 'role="alert"' in call.again((known, value)), value
    assert files(models) == before
    assert not list(tmp_path.iterdir())


def test_a_model_that_goes_or_changes_is_noticed(tab, models):
    source = models / "VAE" / VAE
    tab.choose(VAE)
    kept = source.read_bytes()
    source.unlink()
    refused(tab, "load", VAE, "refresh the list")
    source.write_bytes(kept)
    tab.load(VAE)
    os.utime(source, ns=(1, 1))
    refused(tab, "save", VAE, "was changed since it was loaded", "load it again")
    tab.load(BLOATED)
    advanced(tab)
    tab.choose("VAE-v1-Demo", "class")
    tab.choose(VAE, "import_source")
    tab.click("import")
    tab.wait_for(VAE, "edits")
    source.unlink()
    refused(tab, "save", VAE, "is not there any more")
    tab.click("undo")
    tab.wait_for("Nothing of", "edits")
    tab.save()


def test_names_that_cannot_be(tab, models):
    tab.load(VAE)
    before = files(models)
    for name, words in (
        ("../x", "../x"),
        ("/tmp/x", "/tmp/x"),
        ("C:x", "C:x"),
        ("con", "device name"),
        ("demo.vae", "exists already"),
    ):
        tab.write_name(name)
        refused(tab, "save", words)  # words of this name alone: Gradio drops clicks while an answer is awaited
    assert files(models) == before


def test_buttons_before_a_load(tab, models):
    before = files(models)
    refused(tab, "load", "No model is chosen")
    refused(tab, "save", "nothing to save yet")
    advanced(tab)
    for button in ("import", "export", "undo", "report"):
        assert tab.part(button).is_disabled(), button
    assert files(models) == before


def test_an_import_that_does_not_fit(tab, models):
    tab.load(BLOATED)
    advanced(tab)
    tab.choose("UNET-v1-Demo", "class")
    tab.choose(VAE, "import_source")
    refused(tab, "import", VAE, "UNET")
    assert tab.page.locator("[data-model-toolkit-unsaved]").count() == 0
    tab.choose("VAE-v1-Demo", "class")
    tab.click("import")
    tab.wait_for(VAE, "edits")
    tab.save()


def test_a_second_save_waits_for_the_first(tab, models, slow):
    tab.load(BLOATED)
    before = files(models)
    slow()
    tab.click("save")
    tab.wait_for("Saving ")
    for button in ("save", "load", "clear"):
        tab.hears(button, "is still being saved")
    tab.click("cancel")
    tab.wait_for("Cancelled")
    assert files(models) == before


def test_a_page_that_is_closed_during_a_save(webui, browser, tab, models, slow):
    """The save goes on to its end, or leaves nothing; the next page works."""
    tab.load(BLOATED)
    before = files(models)
    slow()
    tab.click("save")
    tab.wait_for("Saving ")
    tab.page.close()
    (webui.data / "slow").unlink()
    deadline = time.monotonic() + 60
    while any(name.endswith(".part") for name, _ in files(models)) and time.monotonic() < deadline:
        time.sleep(0.1)
    new = [name for name, _ in set(files(models)) - set(before)]
    assert new in ([], ["Stable-diffusion/sd-demo-bloated-pruned-fp16.safetensors"])
    for name in new:
        with safe_open(str(models / name), "np") as result:
            assert len(list(result.keys())) > 900
    page = browser.new_page()
    other = webui.enter(page)
    other.load(VAE)
    other.save()
    page.close()


REMOTE = (
    {"x_forwarded_for": "203.0.113.7"},
    {"forwarded": "for=203.0.113.7"},
    {"x_real_ip": "203.0.113.7"},
    {"host": "models.example"},
    {"host": "models.example", "origin": "http://models.example"},
    {"origin": "http://evil.example"},
)


def test_visitors_from_elsewhere_may_look_but_not_save(tab, models):
    load = loaded_call(tab)
    save = Call(tab, "save")
    tab.wait_for("Saved")
    before = files(models)
    name = next(value for value in save.body["data"] if isinstance(value, str) and "fp16" in value)
    for headers in REMOTE:
        assert "another computer" in save.again((name, "stolen"), **headers), headers
        assert 'role="alert"' not in load.again(**headers)
    assert files(models) == before


def loaded_call(tab):
    tab.choose(VAE)
    call = Call(tab, "load")
    tab.wait_for("nothing is changed on disk yet")
    return call


def test_the_loaded_checkpoint_is_never_overwritten(tab, models):
    target = models / "Stable-diffusion" / LOADED
    kept = target.read_bytes()
    tab.load(BLOATED)
    tab.write_name(LOADED.removesuffix(".safetensors"))
    refused(tab, "save", LOADED)
    assert target.read_bytes() == kept
    # As when it was deleted or moved while it is in use: the name stays taken.
    target.unlink()
    refused(tab, "save", LOADED)
    assert not target.exists()


@pytest.fixture
def read_only(models):
    """Makes a folder one that nothing can be written to, for the superuser too."""
    locked = []

    def lock(folder):
        folder.chmod(0o555)
        if os.name == "posix" and os.geteuid() == 0:
            done = shutil.which("chattr") and subprocess.run(["chattr", "+i", folder], capture_output=True, check=False)
            if not done or done.returncode:
                pytest.skip("the superuser may write everywhere here")
        locked.append(folder)

    yield lock
    for folder in locked:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", folder], check=True)
        folder.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no folders that are only to be read")
def test_a_folder_that_cannot_be_written_to(tab, models, read_only):
    tab.load(BLOATED)
    read_only(models / "Stable-diffusion")
    before = files(models)
    refused(tab, "save", "sd-demo-bloated-pruned-fp16.safetensors", "Stable-diffusion")
    assert files(models) == before
    tab.load(VAE)
    tab.save()


def test_the_settings_page_explains_each_setting_and_the_tab_follows_it(browser, webui, models):
    page = browser.new_page()
    tab = webui.enter(page)

    def fix_clip(wanted):
        pick(page.locator("#tabs").first, "Settings")
        pick(page.locator("#settings").first, "Model Toolkit")
        box = page.locator("#setting_model_toolkit_fix_clip input[type=checkbox]")
        box.wait_for()
        if box.is_checked() is not wanted:
            box.click()
        page.locator("#settings_submit").first.click()
        expect(page.locator("#settings_result").first).to_contain_text("1 settings changed")

    fix_clip(True)
    section = page.locator("#settings_model_toolkit").first.inner_text()
    for setting in SETTINGS:
        page.locator(f"#setting_model_toolkit_{setting.key}").first.wait_for()
        assert setting.explanation in section, setting.key
    tab = webui.enter(page)
    tab.load("sd-demo-broken-ids.safetensors")
    assert tab.ticked("fix_clip")
    fix_clip(False)
    tab = webui.enter(page)
    tab.load("sd-demo-broken-ids.safetensors")
    assert not tab.ticked("fix_clip")
    page.close()


@pytest.fixture
def data(demo, tmp_path):
    """The data folder of a WebUI with models of its own."""
    (tmp_path / "models").mkdir()
    fill(tmp_path / "models", demo, COPIED[-1:])
    return tmp_path


def test_the_flag_lets_everybody_save(browser, data):
    page = browser.new_page()
    with fake_webui(data, FLAVOURS[0], "--toolkit-allow-remote-writes") as webui:
        tab = webui.enter(page)
        tab.load(VAE)
        save = Call(tab, "save")
        tab.wait_for("Saved")
        name = next(value for value in save.body["data"] if isinstance(value, str) and "fp16" in value)
        save.again((name, "welcome"), **REMOTE[0])
        tab.wait_for("Saved")
        page.close()
    assert (data / "models" / "VAE" / "welcome.safetensors").exists()


def test_frozen_settings_and_a_tunnel(browser, data):
    """Settings are read but not changed, and with a tunnel open even a local visitor may be anybody."""
    (data / "config.json").write_text(json.dumps({"model_toolkit_precision": "bf16"}))
    # What an earlier version of the tab showed at its first start.
    (data / "ui-config.json").write_text(json.dumps({"model_toolkit/Precision/value": "auto"}))
    before = files(data / "models")
    page = browser.new_page()
    with fake_webui(data, FLAVOURS[0], "--freeze-settings", "--share") as webui:
        tab = webui.enter(page)
        tab.load(VAE)
        assert "bf16" in tab.name
        refused(tab, "save", "tunnel", "--toolkit-allow-remote-writes")
        page.close()
    assert files(data / "models") == before
    assert json.loads((data / "config.json").read_text()) == {"model_toolkit_precision": "bf16"}
    kept = json.loads((data / "ui-config.json").read_text())
    assert "txt2img/Prompt/value" in kept
    assert [key for key in kept if key.startswith("model_toolkit/")] == ["model_toolkit/Precision/value"]


def test_disabled_and_enabled_again(browser, data):
    (data / "config.json").write_text(json.dumps({"disabled_extensions": [ROOT.name]}))
    page = browser.new_page()
    with fake_webui(data, FLAVOURS[0]) as webui:

        def switch():
            before = server_mark(webui.address)
            pick(page.locator("#tabs").first, "Extensions")
            page.locator(f"#extensions input[name='enable_{ROOT.name}']").click()
            page.locator("#extensions_apply").first.click()
            deadline = time.monotonic() + 60
            while server_mark(webui.address) in {None, before} and time.monotonic() < deadline:
                page.wait_for_timeout(100)
            go(page, webui.address)
            page.wait_for_selector("#tabs")

        go(page, webui.address)
        page.wait_for_selector("#tabs")
        assert page.locator("#model_toolkit").count() == 0
        switch()
        tab = webui.enter(page)
        tab.load(VAE)
        tab.save()
        switch()
        assert page.locator("#model_toolkit").count() == 0
        page.close()
