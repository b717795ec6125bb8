"""The Compare panel in a real browser: a pair, a third, a set, a page of its own, downloads, narrow and dark."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("gradio")

from playwright.sync_api import expect

from lib_toolkit.files import SourceFile
from tests.making import safetensors_bytes
from tests.ui.conftest import fill
from tests.ui.fake_webui import FLAVOURS, QUEUES, fake_webui
from tests.ui.story import pick

NAMES = ("Stable-diffusion/sd-demo.safetensors", "Stable-diffusion/sd-demo-wrong-vae.safetensors")
ACTS = 'x<img src=x onerror="window.acted=1">.${window.acted=2}.{{window.acted=3}}'


@pytest.fixture
def panel(open_tab, models, demo):
    """Opens the panel."""
    for name in NAMES:
        shutil.copyfile(demo / name, models / name)

    def opened(theme="light", width=1280):
        tab = open_tab(theme, width)
        pick(tab.part("tabs"), "Compare")
        return tab

    return opened


def add(tab, words):
    """One more choice of a set."""
    box = tab.part("compare_set").locator("input").first
    box.click()
    box.press_sequentially(words)
    options = tab.page.locator("ul.options li:visible, ul[role=listbox] li:visible").filter(has_text=words)
    options.first.dispatch_event("mousedown")
    expect(tab.part("compare_set")).to_contain_text(words)


def test_a_pair_beside_its_blocks_in_a_page_and_as_files(panel):
    tab = panel()
    tab.click("compare_pair")
    tab.wait_for("Nothing is loaded above; choose a model as A")
    tab.choose("sd-demo.safetensors", "compare_a")
    tab.choose("sd-demo-wrong-vae.safetensors", "compare_b")
    tab.click("compare_pair")
    tab.wait_for("no model was changed")
    tab.wait_for("244 of 977 tensors that both have differ", "compare_view")
    picture = tab.page.locator("#model_toolkit .model-toolkit-unet").first
    expect(picture.locator(".u-block")).to_have_count(25)
    blocks = tab.page.locator(".model-toolkit-beside .model-toolkit-scroll").first
    left, right = picture.bounding_box(), blocks.bounding_box()
    assert right["x"] >= left["x"] + left["width"], "the table is beside the picture"
    with tab.page.expect_popup() as waiting:
        tab.page.click("[data-model-toolkit-open=compare_html]")
    page = waiting.value
    page.wait_for_selector("#unet svg")
    assert page.title() == "sd-demo.safetensors and sd-demo-wrong-vae.safetensors: comparison"
    page.close()
    for part, ending in (("html", ".html"), ("json", ".json"), ("more", ".png")):
        with tab.page.expect_download() as getting:
            tab.page.locator(f"#model_toolkit_compare_{part} a[href]").first.click()
        data = Path(getting.value.path()).read_bytes()
        assert getting.value.suggested_filename == f"sd-demo and sd-demo-wrong-vae{ending}"
        assert data.startswith({".html": b"<!DOCTYPE", ".json": b"{", ".png": b"\x89PNG"}[ending])
        if part == "json":
            assert json.loads(data)["verdicts"]


OPTIONS = "ul.options li:visible, ul[role=listbox] li:visible"


def reach(tab, part):
    """Go there with the Tab key; the list of a choice that is left takes one press more."""
    for _ in range(3):
        tab.page.keyboard.press("Tab")
        tab.page.wait_for_timeout(100)
        if tab.part(part).evaluate("(part) => part.matches(':focus') || part.querySelector('input:focus') !== null"):
            return
    raise AssertionError(f"{part} is not reached")


def compare_with_keys(tab, words, choice):
    """Coming from B, choose the one third model with these words, which are not all of it, and go on to the button."""
    for pause in (300, 1000, 3000):  # Gradio opens the list anew a moment after each key, and then knows no arrows
        tab.part("compare_b").locator("input").first.focus()
        reach(tab, "compare_third")
        tab.page.keyboard.press("ControlOrMeta+a")
        tab.page.keyboard.type(words)
        expect(tab.page.locator(OPTIONS).filter(has_text=words)).to_have_count(1)
        tab.page.wait_for_timeout(pause)
        tab.page.keyboard.press("ArrowDown")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_timeout(pause)
        if choice in tab.part("compare_third").locator("input").first.input_value():
            break
    expect(tab.part("compare_third").locator("input").first).to_have_value(re.compile(re.escape(choice)))
    reach(tab, "compare_at_lower")
    reach(tab, "compare_pair")
    tab.page.keyboard.press("Enter")


@pytest.fixture
def mix(models, demo):
    """A model with the VAE three quarters of the way from one to the other."""
    a, b = (load_file(demo / name) for name in NAMES)
    for name, array in a.items():
        if name.startswith("first_stage_model."):
            a[name] = (0.25 * array.astype("<f8") + 0.75 * b[name].astype("<f8")).astype(array.dtype)
    save_file(a, models / "Stable-diffusion" / "mix-of-both.safetensors")


def test_a_third_model_with_the_keyboard_in_dark_on_a_narrow_page(panel, mix):
    tab = panel("dark", 400)
    tab.choose("sd-demo.safetensors", "compare_a")
    tab.choose("sd-demo-wrong-vae.safetensors", "compare_b")
    assert tab.part("compare_third").locator("input").first.input_value() == "No third model"
    compare_with_keys(tab, "mix-of-both", "mix-of-both.safetensors")
    told = "Compared sd-demo.safetensors with sd-demo-wrong-vae.safetensors"
    tab.wait_for(f"{told}, and mix-of-both.safetensors with both; no model was changed.")
    tab.wait_for("The VAE of mix-of-both.safetensors is mixed of A's and B's: 75.0 % of B", "compare_view")
    blocks = tab.part("compare_view").locator("details", has_text="Show the merge blocks")
    blocks.locator("summary").press("Enter")
    expect(blocks.locator("tbody tr")).to_have_count(26)
    expect(blocks.locator("tbody tr").first).to_be_visible()
    assert tab.run("document.documentElement.scrollWidth") <= 400
    assert tab.cut("compare_view") == []
    for part in ("compare_third", "compare_at_lower", "compare_pair"):
        box = tab.part(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400, part
    with tab.page.expect_popup() as waiting:
        tab.page.click("[data-model-toolkit-open=compare_html]")
    expect(waiting.value.locator("#third")).to_contain_text("mix-of-both.safetensors")
    waiting.value.close()
    with tab.page.expect_download() as getting:
        tab.page.locator("#model_toolkit_compare_json a[href]").first.click()
    places = json.loads(Path(getting.value.path()).read_text("utf-8"))["third"]["components"]
    assert [round(place["ratio"], 4) for place in places if place["mixed"]] == [0.75]
    compare_with_keys(tab, "No third", "No third model")
    tab.wait_for(f"{told}; no model was changed.")
    expect(tab.part("compare_view")).not_to_contain_text("M between A and B")


def test_a_set_in_dark_on_a_narrow_page(panel):
    tab = panel("dark", 400)
    add(tab, "sd-demo.safetensors")
    tab.click("compare_several")
    tab.wait_for("A set needs two models or more")
    add(tab, "sd-demo-wrong-vae.safetensors")
    tab.click("compare_several")
    tab.wait_for("Compared 2 models, each with each")
    tab.wait_for("UNet: the same in sd-demo.safetensors and sd-demo-wrong-vae.safetensors", "compare_view")
    heat = tab.page.locator("#model_toolkit_compare_view .set-picture").first
    expect(heat).to_be_visible()
    assert tab.run("document.documentElement.scrollWidth") <= 400
    for part in ("compare_a", "compare_set", "compare_pair", "compare_several", "compare_view"):
        box = tab.part(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400, part
    assert tab.page.locator("#model_toolkit_compare_more a[href]").first.get_attribute("href").endswith(".zip")


def test_nothing_of_a_file_acts_in_the_tab(panel, models):
    for number in range(2):
        table = {ACTS: ("F16", (2, 2), bytes([number, 60] * 4)), "x.y": ("F16", (2, 2), bytes(8))}
        (models / "VAE" / f"acting{number}.safetensors").write_bytes(safetensors_bytes(table, {ACTS: ACTS}))
    tab = panel()
    tab.choose("acting0", "compare_a")
    tab.choose("acting1", "compare_b")
    tab.click("compare_pair")
    tab.wait_for(re.compile("no model was changed"))
    expect(tab.page.locator("#model_toolkit_compare_view .model-toolkit-compare")).to_be_attached()
    assert tab.run("window.acted ?? null") is None
    assert tab.page.locator("#model_toolkit_compare_view img").count() == 0


def test_progress_is_told_and_cancel_ends_it(panel, monkeypatch):
    usual = SourceFile.read_at

    def read_at(self, offset, out):
        time.sleep(0.02)
        usual(self, offset, out)

    tab = panel()
    tab.choose("sd-demo.safetensors", "compare_a")
    tab.choose("sd-demo-wrong-vae.safetensors", "compare_b")
    monkeypatch.setattr(SourceFile, "read_at", read_at)
    tab.click("compare_pair")
    for words in ("Comparing: ", " of 15.0 MB", "/s", " left"):
        tab.wait_for(words, "progress")
    tab.click("compare_pair")
    tab.wait_for("is still being compared; wait until it is done, or cancel it")
    tab.click("cancel")
    tab.wait_for("Cancelled; nothing was left behind.")
    expect(tab.part("compare_view")).to_contain_text("Nothing is compared yet")


@pytest.mark.parametrize("flags", QUEUES)
def test_in_a_webui_with_and_without_its_queue(browser, demo, tmp_path, flags):
    folder = tmp_path / "models"
    folder.mkdir()
    fill(folder, demo, NAMES)
    with fake_webui(tmp_path, FLAVOURS[0], *flags) as webui:
        page = browser.new_page()
        tab = webui.enter(page)
        tab.load("sd-demo.safetensors")
        pick(tab.part("tabs"), "Compare")
        tab.choose("sd-demo-wrong-vae.safetensors", "compare_b")
        tab.click("compare_pair")
        tab.wait_for("Compared sd-demo.safetensors with sd-demo-wrong-vae.safetensors")
        tab.wait_for("Same UNet: all 684 tensors are equal.", "compare_view")
        with page.expect_download() as getting:
            page.locator("#model_toolkit_compare_json a[href]").first.click()
        assert json.loads(Path(getting.value.path()).read_text("utf-8"))["verdicts"]
        assert webui.noise == []
        page.close()
