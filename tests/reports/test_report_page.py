"""The page of a report in a real browser, opened as a file: it asks nobody, searches, folds, copies and prints."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from lib_toolkit.analysis.report import analyse
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.reports.report_html import report_html
from tests.making import of_arrays, safetensors_bytes
from tests.reports.report_cases import FINDINGS, HISTORY, HOSTILE, MERGE, model_of, report_of


@pytest.fixture
def open_page(chromium, tmp_path):
    """Opens a report as a file; afterwards it must have asked for nothing else and complained of nothing."""
    asked, complaints, contexts = [], [], []

    def opened(report, width=1280, **options):
        path = tmp_path / "report #1%.html"
        path.write_text(report_html(report), encoding="utf-8", newline="")
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert len(asked) == len(contexts), asked
    assert complaints == []


def full_size():
    """SD-v1 with its EMA copy, by its header."""
    return report_of(model_of(architecture("sd1").table(ema=True)), FINDINGS, full=False)


def seven_thousand():
    table = {
        f"block_{i}.layer_{j}.{end}.weight": (8, 4) for i in range(70) for j in range(50) for end in ("up", "down")
    }
    return report_of(model_of({**table, **{f"flat_{i}": (3,) for i in range(450)}}), full=False)


def items(page):
    return page.locator("#tree [role=treeitem]:visible")


def focused(page):
    return page.evaluate("document.activeElement.querySelector('code')?.textContent ?? document.activeElement.id")


def test_tree_is_built_where_it_is_opened(open_page):
    page = open_page(full_size())
    shown = page.locator("#tree > li code").all_inner_texts()
    assert shown == [
        "cond_stage_model.transformer.text_model",
        "first_stage_model",
        "model_ema",
        "model.diffusion_model",
    ]
    assert page.locator("#tree ul").count() == 0


def test_folding_and_unfolding(open_page):
    page = open_page(full_size())
    vae = page.locator("#tree > li", has_text="first_stage_model")
    vae.locator(":scope > .line").click()
    assert vae.get_attribute("aria-expanded") == "true"
    names = vae.locator(":scope > ul > li > .line code").all_inner_texts()
    assert names == ["decoder", "encoder", "post_quant_conv", "quant_conv"]
    assert "248 tensors" in vae.locator(":scope > .line").inner_text()
    vae.locator(":scope > .line").click()
    assert vae.locator("ul").first.is_hidden()
    before = items(page).count()
    page.click("#unfold")
    opened = items(page).count()
    assert opened > before
    page.click("#unfold")
    assert items(page).count() > opened
    page.click("#fold")
    assert items(page).count() == before


def test_natural_order_of_numbers(open_page):
    page = open_page(seven_thousand())
    shown = page.locator("#tree > li > .line code").all_inner_texts()
    assert shown[:3] == ["block_0", "block_1", "block_2"]
    assert shown.index("block_9") + 1 == shown.index("block_10")


def test_many_children_come_in_batches(open_page):
    page = open_page(seven_thousand())
    assert page.locator("#tree > li").count() == 201  # 200 and one that asks for more
    more = page.locator("#tree > .more")
    assert more.inner_text() == "Show 200 more of 320"
    more.locator(".line").click()
    assert page.locator("#tree > li").count() == 401
    page.locator("#tree > .more .line").click()
    assert page.locator("#tree > li").count() == 520
    assert page.locator("#tree > .more").count() == 0


def test_search_finds_by_name_type_shape_and_part(open_page):
    page = open_page(full_size())
    count = page.locator("#count")
    page.fill("#search", "attn2 to_k diffusion_model.")
    page.wait_for_selector("#tree.found")
    assert page.inner_text("#count").startswith("16 of 1,817 tensors, ")
    assert items(page).first.locator("code").inner_text().endswith("attn2.to_k.weight")
    page.fill("#search", "[49408, 768]")
    expect(count).to_have_text("1 of 1,817 tensors, 75.9 MB.")
    assert page.locator("#tree li").count() == 1
    page.fill("#search", "EMA copy")
    expect(count).to_contain_text("0 of 1,817 tensors")
    page.fill("#search", "unet-v1-ema")
    expect(count).to_contain_text("686 of 1,817 tensors")
    page.fill("#search", "no such thing")
    expect(page.locator("#tree li")).to_have_count(0)
    page.fill("#search", "")
    expect(count).to_contain_text(re.compile("^1,817 tensors, "))


def test_keyboard(open_page):
    page = open_page(full_size())
    page.focus("#search")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "cond_stage_model.transformer.text_model"
    page.keyboard.press("ArrowDown")
    assert focused(page) == "first_stage_model"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "decoder"
    page.keyboard.press("End")
    last = focused(page)
    assert last not in ("decoder", "")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "decoder"
    page.keyboard.press("ArrowLeft")
    assert focused(page) == "first_stage_model"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "model_ema"
    page.keyboard.press("ArrowUp")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "decoder"
    # one stop for the Tab key in the whole tree
    assert page.locator("#tree [tabindex='0']").count() == 1


def test_seven_thousand_tensors_do_not_lag(open_page):
    page = open_page(seven_thousand())
    done = page.evaluate(
        """async () => {
            const ready = performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd;
            const search = document.getElementById("search"), count = document.getElementById("count");
            const start = performance.now();
            search.value = "up.weight block_6";
            search.dispatchEvent(new Event("input"));
            while (!/ of /.test(count.textContent)) await new Promise((done) => setTimeout(done, 5));
            return [ready, performance.now() - start, count.textContent, document.querySelectorAll("#tree li").length];
        }"""
    )
    ready, searched, count, shown = done
    # block_6 and block_60 to block_69, 50 layers each
    assert count == "550 of 7,450 tensors, 35.2 kB."
    assert shown == 201
    assert ready < 3000
    assert searched < 1000


def test_copy_buttons_copy(open_page, chromium):
    page = open_page(report_with_figures(), permissions=["clipboard-read", "clipboard-write"])
    buttons = page.locator("button.copy")
    wanted = buttons.evaluate_all("all => all.map((one) => one.dataset.copy)")
    assert wanted[:2] == ["2020/2982/----", f"mtk1:{99:064x}"]
    for place, text in enumerate(wanted[:2]):
        buttons.nth(place).click()
        expect(page.locator("#said")).to_have_text(f"Copied {text}")
        assert buttons.nth(place).inner_text() == "Copied"
        assert page.evaluate("navigator.clipboard.readText()") == text


def test_copy_without_the_modern_way(open_page):
    page = open_page(report_with_figures(), permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")
    page.locator("button.copy").first.click()
    expect(page.locator("#said")).to_have_text("Copied 2020/2982/----")
    assert page.evaluate("navigator.clipboard.readText()") == "2020/2982/----"


def report_with_figures():
    from dataclasses import replace

    quick = full_size()
    return replace(report_of(model_of({}), FINDINGS), model=quick.model, found=quick.found)


def test_hostile_names_do_nothing(open_page):
    names = [HOSTILE, "a.</script><script>document.title=1</script>.b", "<!--.<script>", "x." * 3000 + "y", "..", ""]
    metadata = {**dict.fromkeys(names, HOSTILE * 100), **MERGE, **HISTORY}
    page = open_page(report_of(model_of(dict.fromkeys(names, (2, 3)), name="<b>x", metadata=metadata), full=False))
    assert page.title() == "<b>x: model report"
    page.click("#unfold")
    page.fill("#search", "onerror")
    page.wait_for_selector("#tree.found")
    assert items(page).count() == 1
    assert "\\u202egnp.exe" in items(page).first.inner_text()
    for element in ("img", "b b", "main script"):
        assert page.locator(element).count() == 0
    for folded in page.locator("details").all():
        folded.evaluate("one => { one.open = true }")
    assert "\u202e" not in page.inner_text("body")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out_and_words_can_be_read(open_page, scheme, width):
    report = report_with_figures()
    report.model.metadata.update({**MERGE, **HISTORY, "word": "w" * 110}) if width else None
    page = open_page(report, width, color_scheme=scheme)
    page.click("#unfold")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ratios = page.evaluate(
        """() => {
            const shade = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
                .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
                .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
            const ground = (one) => {
                for (let here = one; here; here = here.parentElement) {
                    const colour = getComputedStyle(here).backgroundColor;
                    if (colour !== "rgba(0, 0, 0, 0)" && !colour.startsWith("color")) return colour;
                }
            };
            return [...document.querySelectorAll("p, dt, dd, td, th, summary, .level, .size, .remark, .role, a")]
                .map((one) => [getComputedStyle(one).color, ground(one)].map(shade).sort((a, b) => a - b))
                .map(([dark, light]) => (light + 0.05) / (dark + 0.05));
        }"""
    )
    assert len(ratios) > 50
    assert min(ratios) >= 4.5


def test_print_is_folded_and_has_no_buttons(open_page):
    page = open_page(report_with_figures())
    page.click("#unfold")
    page.emulate_media(media="print")
    assert page.locator("button:visible, input:visible, nav:visible").count() == 0
    assert page.locator("#tree ul:visible").count() == 0
    assert page.locator("#tree > li:visible").count() > 3
    assert page.pdf().startswith(b"%PDF")


def test_without_scripts_all_but_the_tree_is_there(open_page):
    page = open_page(report_with_figures(), java_script_enabled=False)
    text = page.inner_text("body")
    assert "The list of tensors needs JavaScript" in text
    assert "2020/2982/----" in text
    assert page.locator("button:visible, input:visible").count() == 0


def test_a_real_report_of_a_real_file(open_page, tmp_path):
    """What the page says is what the file was made to be."""
    rng = np.random.default_rng(0)
    table = {key: shape for key, shape in architecture("sd-v1-demo").table().items() if not key.startswith("cond_")}
    arrays = {key: rng.standard_normal(shape).astype("<f2") for key, shape in table.items()}
    arrays["first_stage_model.quant_conv.bias"][0] = np.nan
    arrays |= {"v_pred": np.zeros(0, "<f4")}
    path = tmp_path / "mine.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays(arrays)))
    with open_model(path) as model:
        page = open_page(analyse(model, identify(model), names={}))
    text = page.inner_text("body")
    assert "mine.safetensors is not a whole model: SD-v1-Demo-BROKEN (checkpoint), without CLIP-v1-Demo." in text
    assert f"safetensors, {path.stat().st_size:,} bytes, {len(arrays):,} tensors" in text
    assert "There is no text encoder inside" in text
    assert ": 1 NaN, none infinite, none beyond FP16." in text
    assert page.locator("button.copy[aria-label='Copy: metric']").get_attribute("data-copy").endswith("/----")
    page.fill("#search", "1 nan")
    expect(page.locator("#count")).to_contain_text("1 of ")
    assert items(page).first.inner_text().startswith("first_stage_model.quant_conv.bias")
