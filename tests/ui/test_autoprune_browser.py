"""Autoprune in a real browser: the panel, and in a WebUI the run at its start, over Reload UI, and without a queue."""

from __future__ import annotations

import json
import time

import pytest

pytest.importorskip("gradio")

from playwright.sync_api import expect

from lib_toolkit.autoprune import starter
from lib_toolkit.hosts.settings import SETTINGS
from tests.autoprune import samples
from tests.autoprune.samples import assert_halved, save
from tests.ui.conftest import fill
from tests.ui.fake_webui import FLAVOURS, QUEUES, fake_webui
from tests.ui.story import HOST_LISTS, PATIENCE, pick, reload_ui

DEMO = ("Autoprune/sd-demo-download.ckpt", "VAE/demo.vae.safetensors")


@pytest.fixture
def drop(models, demo):
    """The drop folder of the standalone tab, with one model in it, and files that are none."""
    fill(models, demo, DEMO)
    folder = models / "Autoprune"
    (folder / "sd-demo-download.preview.png").write_bytes(b"picture")
    (folder / "page.ckpt").write_text("<html>")
    (folder / "comes.safetensors.crdownload").write_text("")
    return folder


SLOW = """
import sys, time
sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]
from pathlib import Path
from lib_toolkit.cli.main import run
from lib_toolkit.files import SourceFile
usual = SourceFile.read_at
def read_at(self, offset, out):
    if Path({switch!r}).exists():
        time.sleep(0.05)
    usual(self, offset, out)
SourceFile.read_at = read_at
run()
"""
"""What a child runs that reads slowly while a file is there."""

NEIGHBOUR = """
import sys
sys.modules["lib_toolkit.autoprune.starter"]._COMMAND = {command!r}
"""
"""Another extension, which makes our children slow."""


def panel(tab):
    pick(tab.part("tabs"), "Autoprune")
    tab.wait_for("Put downloads into", "autoprune_view")
    return tab


def test_run_now_and_what_it_did(open_tab, drop):
    tab = panel(open_tab())
    for words in ("sd-demo-download.ckpt", "comes.safetensors.crdownload", "There was none yet."):
        tab.wait_for(words, "autoprune_view")
    assert tab.part("autoprune_cancel").is_disabled()
    tab.click("autoprune_run")
    tab.wait_for("Starting", "autoprune_progress")
    assert tab.part("autoprune_run").is_disabled()
    tab.wait_for("1 waiting, 1 moved to Failed, 1 pruned", "autoprune_view")
    tab.wait_for("now Stable-diffusion/sd-demo-download.safetensors", "autoprune_view")
    expect(tab.part("autoprune_run")).to_be_enabled()
    expect(tab.page.locator("#model_toolkit [data-model-toolkit-step]")).to_have_count(0)
    # By keyboard: what was done with the file unfolds.
    card = tab.part("autoprune_view").locator("li", has_text="sd-demo-download.ckpt").first
    card.locator("summary").focus()
    tab.page.keyboard.press("Enter")
    for words in ("EMA", "F32 → F16", "sd-demo-download.preview.png", "SHA256 of the source"):
        expect(card).to_contain_text(words)
        expect(card.get_by_text(words).last).to_be_visible()
    models = drop.parent
    assert (models / "Stable-diffusion" / "sd-demo-download.preview.png").read_bytes() == b"picture"
    assert (drop / "Done" / "sd-demo-download.ckpt").is_file()
    assert (drop / "Failed" / "page.ckpt").is_file()
    # The tab's own lists know the new file; another page tells the same.
    tab.load("sd-demo-download.safetensors")
    panel(open_tab()).wait_for("now Stable-diffusion/sd-demo-download.safetensors", "autoprune_view")


def test_preview_then_run_now(open_tab, drop):
    before = sorted((path, path.stat().st_mtime_ns) for path in drop.parent.rglob("*"))
    tab = panel(open_tab())
    tab.click("autoprune_preview")
    tab.wait_for("Starting", "autoprune_progress")
    expect(tab.part("autoprune_preview")).to_be_disabled()
    expect(tab.part("autoprune_cancel")).to_be_enabled()
    tab.click("autoprune_cancel")
    tab.wait_for("The preview was stopped", "autoprune_view")
    tab.click("autoprune_preview")
    tab.wait_for("Files: 1 waiting, 1 to move to Failed, 1 to prune;", "autoprune_view")
    expect(tab.part("autoprune_view").get_by_role("heading", name="Preview: nothing was changed")).to_be_visible()
    expect(tab.page.locator("#model_toolkit [data-model-toolkit-step]")).to_have_count(0)
    card = tab.part("autoprune_view").locator("li", has_text="sd-demo-download.ckpt").first
    for words in ("would be saved), as Stable-diffusion/sd-demo-download.safetensors.", "To leave out", "F32 → F16"):
        expect(card.get_by_text(words).last).to_be_visible()
    assert sorted((path, path.stat().st_mtime_ns) for path in drop.parent.rglob("*")) == before
    # A run does what was foretold, without waiting for the preview that goes on.
    tab.click("autoprune_preview")
    tab.wait_for("Starting", "autoprune_progress")
    tab.click("autoprune_run")
    tab.wait_for("1 waiting, 1 moved to Failed, 1 pruned", "autoprune_view")
    expect(tab.part("autoprune_view")).not_to_contain_text("Preview: nothing")
    expect(tab.part("autoprune_preview")).to_be_enabled()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_narrow_page(open_tab, drop, theme):
    tab = panel(open_tab(theme, 400))
    for button, words in (("autoprune_preview", "1 to prune"), ("autoprune_run", "1 pruned")):
        tab.click(button)
        tab.wait_for(words, "autoprune_view")
        assert tab.run("document.documentElement.scrollWidth") <= 400
    for part in ("autoprune_run", "autoprune_preview", "autoprune_look", "autoprune_cancel", "autoprune_view"):
        box = tab.part(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400, part


def test_stop_and_other_work_meanwhile(open_tab, drop, monkeypatch):
    monkeypatch.setattr(starter, "_COMMAND", SLOW.format(switch=str(drop)))
    for seed in range(30):
        save(drop / f"m{seed:03}.safetensors", samples.lora(seed, modules=9))
    tab = panel(open_tab())
    tab.click("autoprune_run")
    tab.wait_for(" so far", "autoprune_view")
    tab.load("demo.vae.safetensors")
    tab.click("autoprune_cancel")
    tab.wait_for("was cancelled.", "autoprune_view")
    assert "demo.vae.safetensors" in tab.part("identity").inner_text()
    assert not list(drop.parent.rglob(".model-toolkit-*"))
    done = len(list((drop / "Done").glob("*")))
    assert 0 < done < 31


@pytest.fixture
def data(demo, tmp_path):
    """The data folder of a WebUI with models of its own."""
    (tmp_path / "models").mkdir()
    fill(tmp_path / "models", demo, DEMO)
    return tmp_path


def configured(data, **settings):
    told = {f"model_toolkit_{key}": value for key, value in settings.items()}
    (data / "config.json").write_text(json.dumps(told))


def offers(page, name):
    """Whether the WebUI's own list has the model; a list that is open does not take up what comes in."""
    box = page.locator(HOST_LISTS).first.locator("input").first
    box.click()
    page.wait_for_timeout(300)
    found = page.locator("ul.options li:visible, ul[role=listbox] li:visible").filter(has_text=name).count()
    box.blur()
    return found > 0


def wait_until(true, what):
    deadline = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("flags", QUEUES)
def test_the_setting_makes_a_webui_prune_at_its_start(browser, data, flags):
    configured(data, autoprune=True)
    drop, page = data / "models" / "Autoprune", browser.new_page()
    with fake_webui(data, FLAVOURS[0], *flags) as webui:
        tab = panel(webui.enter(page))
        tab.wait_for("At each start, or when you press Run now", "autoprune_view")
        tab.wait_for("now Stable-diffusion/sd-demo-download.safetensors", "autoprune_view")
        # The WebUI offers the model, as after a save.
        wait_until(lambda: offers(page, "sd-demo-download"), "the WebUI's own list knows the model")
        assert (drop / "Done" / "sd-demo-download.ckpt").is_file()
        assert "Model Toolkit: autopruning has ended. Files: 1 pruned;" in webui.printed
        save(drop / "late.safetensors", arrays := samples.lora())
        panel(tab).click("autoprune_run")
        tab.wait_for("now Lora/late.safetensors", "autoprune_view")
        assert_halved(data / "models" / "Lora" / "late.safetensors", arrays)
        page.close()


def test_without_the_setting_nothing_happens_and_the_settings_page_turns_it_on(browser, data):
    drop, page = data / "models" / "Autoprune", browser.new_page()
    with fake_webui(data, FLAVOURS[-1]) as webui:
        tab = panel(webui.enter(page))
        tab.wait_for("When you press Run now, each of them", "autoprune_view")
        tab.wait_for("Settings: Settings → Model Toolkit.", "autoprune_view")
        reload_ui(page, webui.address)
        time.sleep(3)  # a run takes two looks two seconds apart
        assert [path.name for path in drop.iterdir()] == ["sd-demo-download.ckpt"]
        tab = webui.enter(page)
        pick(page.locator("#tabs").first, "Settings")
        pick(page.locator("#settings").first, "Model Toolkit")
        page.locator("#setting_model_toolkit_autoprune input[type=checkbox]").click()
        page.locator("#settings_submit").first.click()
        expect(page.locator("#settings_result").first).to_contain_text("1 settings changed")
        assert SETTINGS[0].key == "autoprune"
        reload_ui(page, webui.address)
        panel(webui.enter(page)).wait_for("now Stable-diffusion/sd-demo-download.safetensors", "autoprune_view")
        page.close()
    assert (drop / "Done" / "sd-demo-download.ckpt").is_file()


def test_reload_ui_during_a_run(browser, data):
    """The run ends cleanly and begins anew; each file is dealt with once, and nothing is lost."""
    configured(data, autoprune=True)
    models, drop = data / "models", data / "models" / "Autoprune"
    made = {f"m{seed:03}.safetensors": samples.lora(seed, modules=9) for seed in range(40)}
    for name, arrays in made.items():
        save(drop / name, arrays)
    neighbour = data / "extensions" / "neighbour" / "scripts"
    neighbour.mkdir(parents=True)
    switch = data / "slow"
    switch.touch()
    (neighbour / "neighbour.py").write_text(NEIGHBOUR.format(command=SLOW.format(switch=str(switch))))
    page = browser.new_page()
    with fake_webui(data, FLAVOURS[0]) as webui:
        tab = panel_while_running(webui.enter(page))
        tab.wait_for(" so far", "autoprune_view")
        reload_ui(page, webui.address)
        switch.unlink()
        webui.enter(page)
        wait_until(lambda: len(list((drop / "Done").iterdir())) == 41, "all files are dealt with")
        page.close()
    assert sorted(path.name for path in (models / "Lora").iterdir()) == sorted(made)
    for name in list(made)[::10]:
        assert_halved(models / "Lora" / name, made[name])
    journal = [json.loads(line) for line in (drop / "journal.jsonl").read_text().splitlines()]
    written = [line["file"] for line in journal if line["line"] == "step" and line["outcome"] == "written"]
    assert len(written) == len(set(written)) == 41
    ends = [line["state"] for line in journal if line["line"] == "end"]
    assert ends[0] == "cancelled" and ends[-1] == "done", "the reload came during the first run"
    assert not list(models.rglob(".model-toolkit-*"))


def panel_while_running(tab):
    pick(tab.part("tabs"), "Autoprune")
    return tab


def test_the_end_of_the_webui_ends_the_run(data):
    configured(data, autoprune=True)
    drop = data / "models" / "Autoprune"
    for seed in range(120):
        save(drop / f"m{seed:03}.safetensors", samples.lora(seed, modules=1))
    with fake_webui(data, FLAVOURS[0]) as webui:
        wait_until(lambda: (drop / "Done").is_dir(), "a first file is dealt with")
        webui.process.kill()
    wait_until(lambda: "cancelled" in (drop / "journal.jsonl").read_text(), "the child notices")
    done = {path.name for path in (drop / "Done").iterdir()}
    left = {path.name for path in drop.glob("*.*") if path.suffix in {".safetensors", ".ckpt"}}
    assert done and left and not done & left and len(done | left) == 121
    wait_until(lambda: not list((data / "models").rglob(".model-toolkit-*")), "no temporary file is left")
