"""The page's script in a browser: searching, folding, copying, asking, refreshing, guarding, loading it twice."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytest.importorskip("gradio")

from playwright.sync_api import expect

from lib_toolkit.ui.assets import SCRIPT, read_asset
from tests.making import safetensors_bytes
from tests.ui.reporting_page import serving_page

KEYS = [f"blocks.{block}.attn{kind}.to_{part}.weight" for block in range(12) for kind in (1, 2) for part in "qkv"]
COUNT_WRITES = "() => { window.writes = 0; navigator.clipboard.writeText = async () => { window.writes += 1; }; }"
SEARCH = "#model_toolkit_tensors_search"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "some.safetensors"
    table = {key: ("F16", (2, 1), bytes(4)) for key in KEYS} | {"bias": ("F32", (3,), bytes(12))}
    path.write_bytes(safetensors_bytes(table))
    with serving_page(path) as address:
        yield address


@pytest.fixture(scope="module")
def context(chromium):
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def blank(context, address):
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#model_toolkit_report")
    yield page
    page.close(run_before_unload=False)
    assert errors == []


@pytest.fixture
def page(blank):
    blank.click("#model_toolkit_report")
    blank.wait_for_selector(".model-toolkit-tree")
    return blank


def tell(page, html):
    """Put HTML into the status and progress, as answers of the server do."""
    page.locator("#words textarea, #words input").first.fill(html)
    page.locator("#words textarea, #words input").first.press("Tab")
    page.click("#tell")


def rows(page):
    return page.locator(".model-toolkit-tree li:visible > button").count()


def told(page):
    return page.locator(".model-toolkit-tree [role=status]")


def test_the_script_is_well_formed(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("There is no node on PATH to check the script's syntax with.")
    copy = tmp_path / "script.js"
    copy.write_text(read_asset(SCRIPT), "utf-8")
    assert subprocess.run([node, "--check", copy], check=False).returncode == 0


def test_search_counts_unfolds_and_gives_back_what_was(page):
    assert rows(page) == 1
    expect(told(page)).to_have_text("73 tensors, 300 bytes.")
    page.locator("summary", has_text="blocks").first.click()
    page.fill(SEARCH, "ATTN2 to_q")
    expect(told(page)).to_have_text("12 of 73 listed tensors match.")
    assert rows(page) == 12
    page.fill(SEARCH, "f32 [3]")
    expect(told(page)).to_have_text("1 of 73 listed tensors match.")
    assert rows(page) == 1
    page.fill(SEARCH, "blocks.11.attn1.to_k")
    expect(told(page)).to_have_text("1 of 73 listed tensors match.")
    page.fill(SEARCH, "nowhere")
    expect(told(page)).to_have_text("0 of 73 listed tensors match.")
    assert rows(page) == 0
    height = page.locator(".model-toolkit-tree > ul").bounding_box()
    page.click("[data-model-toolkit-clear]")
    expect(told(page)).to_have_text("73 tensors, 300 bytes.")
    assert page.input_value(SEARCH) == ""
    assert page.locator(".model-toolkit-tree details[open]").count() == 1
    assert page.locator(".model-toolkit-tree > ul").bounding_box() == height
    assert page.evaluate("document.activeElement.id") == SEARCH[1:]


def test_the_tree_folds_by_keyboard_and_at_once(page):
    page.locator("summary", has_text="blocks").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".model-toolkit-tree details[open]").count() == 2
    page.click("[data-model-toolkit-fold]")
    assert page.locator(".model-toolkit-tree details[open]").count() == 0


def test_the_whole_name_of_a_tensor_is_copied(page):
    page.fill(SEARCH, "blocks.3.attn2.to_v")
    expect(told(page)).to_have_text("1 of 73 listed tensors match.")
    key = page.locator(".model-toolkit-tree li:visible > button")
    expect(key).to_have_count(1)
    key.click()
    expect(key).to_have_attribute("data-said", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "blocks.3.attn2.to_v.weight"
    expect(page.locator(".model-toolkit-said")).to_have_text("Copied blocks.3.attn2.to_v.weight")
    expect(key).not_to_have_attribute("data-said", "Copied")


def test_copying_works_without_leave_for_the_clipboard(page):
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    button = page.locator("[data-model-toolkit-copy]").first
    button.click()
    expect(button).to_have_attribute("data-said", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == button.get_attribute("data-model-toolkit-copy")
    assert page.locator("body > textarea").count() == 0
    page.evaluate("() => { document.execCommand = () => false; }")
    button.click()
    expect(button).to_have_attribute("data-said", "Not allowed")


def test_a_running_job_is_asked_for_until_it_ends(blank):
    tell(blank, '<p data-model-toolkit-step="start">runs</p>')
    expect(blank.locator("#model_toolkit_progress").first).to_contain_text("times")
    assert blank.locator("[data-model-toolkit-step]").count() <= 1


def clicks(page):
    return page.locator("#clicks textarea, #clicks input").first


def test_the_host_refreshes_its_lists_once_for_each_save(blank):
    tell(blank, '<p data-model-toolkit-saved="vae:1">saved</p>')
    expect(clicks(blank)).to_have_value("1")
    blank.wait_for_timeout(1000)
    expect(clicks(blank)).to_have_value("1")
    tell(blank, '<p data-model-toolkit-saved="vae:2">saved</p>')
    expect(clicks(blank)).to_have_value("2")
    # Loading the script again is no save.
    blank.evaluate(read_asset(SCRIPT))
    blank.wait_for_timeout(1000)
    expect(clicks(blank)).to_have_value("2")


def test_leaving_asks_only_with_unsaved_changes(blank):
    asked = []
    blank.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    blank.click("#model_toolkit_report")  # browsers ask only on pages that were used
    blank.wait_for_selector(".model-toolkit-tree")
    blank.reload()
    assert asked == []
    blank.wait_for_selector("#tell")
    tell(blank, "<p data-model-toolkit-unsaved>changed</p>")
    blank.wait_for_selector("[data-model-toolkit-unsaved]")
    blank.reload()
    assert asked == ["beforeunload"]


def test_loaded_twice_it_does_everything_once(page):
    before = set(page.evaluate("Object.keys(window)"))
    page.evaluate(read_asset(SCRIPT))
    assert set(page.evaluate("Object.keys(window)")) == before
    page.evaluate(COUNT_WRITES)
    page.locator("[data-model-toolkit-copy]").first.click()
    page.wait_for_timeout(200)
    assert page.evaluate("window.writes") == 1
    page.fill(SEARCH, "attn1")
    expect(told(page)).to_have_text("36 of 73 listed tensors match.")


def test_nothing_outside_of_the_tab_is_touched(page):
    page.evaluate(
        """() => {
            const outside = document.createElement("div");
            outside.innerHTML = '<button id="stranger" data-model-toolkit-copy="stolen">Copy</button>';
            document.body.append(outside);
        }"""
    )
    page.evaluate(COUNT_WRITES)
    page.click("#stranger")
    page.wait_for_timeout(200)
    assert page.evaluate("window.writes") == 0
