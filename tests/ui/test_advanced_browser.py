"""The Advanced panel in a real browser: what depends on the page, beside the story of a whole visit."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import expect

from tests.ui.story import pick

WRONG = "Stable-diffusion/sd-demo-wrong-vae.safetensors"


@pytest.fixture
def advanced(open_tab, models, demo):
    """Opens the panel with a model loaded."""
    shutil.copyfile(demo / WRONG, models / WRONG)

    def opened(theme="light", width=1280):
        tab = open_tab(theme, width)
        tab.load("sd-demo-wrong-vae.safetensors")
        pick(tab.part("tabs"), "Advanced")
        return tab

    return opened


def chosen(tab, part):
    return tab.part(part).locator("input").first


def test_choices_follow_each_other_and_undo_takes_back(advanced):
    tab = advanced()
    expect(chosen(tab, "architecture")).to_have_value("SD-v1-Demo")
    expect(chosen(tab, "class")).to_have_value("UNET-v1-Demo")
    expect(tab.part("undo")).to_be_disabled()
    tab.choose("VAE-v1-Demo", "class")
    expect(tab.part("export_name").locator("input, textarea").first).to_have_value("sd-demo-wrong-vae.vae")
    tab.choose("demo.vae.safetensors", "import_source")
    tab.click("import")
    tab.wait_for("not saved yet", "unsaved")
    expect(chosen(tab, "class")).to_have_value("VAE-v1-Demo")
    tab.wait_for("VAE-v1-Demo from VAE/demo.vae.safetensors", "edits")
    tab.choose("CLIP-v1-Demo", "architecture")
    expect(chosen(tab, "class")).to_have_value("CLIP-v1-Demo")
    tab.choose("demo.vae.safetensors", "import_source")
    tab.click("import")
    tab.wait_for("has no CLIP-v1-Demo")
    tab.click("undo")
    tab.wait_for("Undone: VAE-v1-Demo")
    expect(tab.page.locator("[data-model-toolkit-unsaved]")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_panel_fits_a_narrow_page(advanced, theme):
    tab = advanced(theme, 400)
    tab.part("details").locator("summary").first.click()
    tab.wait_for("under model.diffusion_model.", "details")
    assert tab.run("document.documentElement.scrollWidth") <= 400
    for part in ("architecture", "import_source", "import", "export", "report", "tensors"):
        box = tab.part(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400, part
    tab.click("report")
    tab.wait_for("SHA-256", "report_view")
    tab.wait_for("The VAE (5007) is none of the known ones", "report_view")
    assert tab.cut("report_view") == []
    hashes = tab.part("report_view").locator("td", has=tab.page.locator("[data-model-toolkit-copy]"))
    assert hashes.count() >= 6
    label = "(e) => getComputedStyle(e, '::before').content"
    assert hashes.first.evaluate(label) == '"Value"', "cells stand below each other, each with its head"
