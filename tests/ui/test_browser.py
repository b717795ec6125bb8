"""The tab in a real browser: what is read, toggled and saved, what is refused, and how it looks."""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest
from playwright.sync_api import expect
from safetensors import safe_open

from lib_toolkit import streaming
from lib_toolkit.files import SourceFile
from tests.ui.driving import read_checkpoint
from tests.ui.story import pick

BLOATED = "sd-demo-bloated.ckpt"


def files(models):
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if path.is_file())


@pytest.fixture
def slow_reads(monkeypatch):
    """Reading takes 50 ms a piece once it is switched on: a save of a demo model takes many seconds."""
    usual, switch = SourceFile.read_at, {"on": False}

    def read_at(self, offset, out):
        if switch["on"] and len(out) > 100:
            time.sleep(0.05)
        usual(self, offset, out)

    monkeypatch.setattr(SourceFile, "read_at", read_at)
    monkeypatch.setattr(streaming, "PIECE", 4096)  # else small tensors are read many at a time
    return switch


def test_load_toggle_and_save_bit_for_bit(tab, models):
    before = files(models)
    tab.load(BLOATED)
    assert files(models) == before, "loading writes nothing"
    identity = tab.part("identity").inner_text()
    assert "is an SD-v1-Demo (checkpoint), intact" in identity
    assert "epoch 12" in identity
    assert "EMA copy" in identity
    assert tab.name == "sd-demo-bloated-pruned-fp16"
    pruned = tab.size
    tab.tick("keep_ema")
    with_ema = tab.wait_for_size(pruned)
    ema = {k: v for k, v in read_checkpoint(models / "Stable-diffusion" / BLOATED)["state_dict"].items() if "ema" in k}
    assert with_ema - pruned >= sum(a.size * 2 for a in ema.values())
    assert "left out" not in tab.part("identity").inner_text()
    tab.tick("keep_ema")
    assert tab.wait_for_size(with_ema) == pruned
    tab.save()
    target = models / "Stable-diffusion" / "sd-demo-bloated-pruned-fp16.safetensors"
    assert target.stat().st_size == pruned, "the prediction is exact"
    source_size = (models / "Stable-diffusion" / BLOATED).stat().st_size
    assert f"{pruned:,} bytes, {source_size - pruned:,} fewer" in tab.status.replace("bytes fewer", "fewer")
    assert "Verified by reading it back" in tab.status
    check_pruned(models / "Stable-diffusion" / BLOATED, target)


def check_pruned(source, target):
    """Against a cast by NumPy and a reader of our own; the result through the safetensors library."""
    arrays = {k: v for k, v in read_checkpoint(source)["state_dict"].items() if not k.startswith("model_ema.")}
    schedule = {"betas"} | {k for k in arrays if "cumprod" in k or k.startswith(("posterior_", "sqrt_", "log_"))}
    narrow = 0
    with safe_open(str(target), "np") as result:
        assert set(result.keys()) == set(arrays)
        for key, array in arrays.items():
            cast = array.dtype == np.float32 and key not in schedule
            expected = array.astype(np.float16) if cast else array
            written = result.get_tensor(key)
            assert written.dtype == expected.dtype, key
            assert written.tobytes() == expected.tobytes(), key
            narrow += cast
    assert narrow > 900
    assert len(schedule) == 12


def test_precision_name_and_format_change_the_plan(tab, models):
    tab.load("sd-demo-broken-ids.safetensors")
    half = tab.size
    assert tab.ticked("half")
    tab.tick("half")
    full = tab.wait_for_size(half)
    assert full > 1.9 * half
    expect(tab.part("precision").locator("input").first).to_have_value("keep")
    tab.choose("bf16", "precision")
    tab.wait_for_size(full)
    assert tab.ticked("half")
    assert tab.name == "sd-demo-broken-ids-bf16"
    tab.choose("ckpt", "format")
    tab.wait_for("sd-demo-broken-ids-bf16.ckpt", "saving")
    tab.tick("fix_clip")
    tab.wait_for("rewritten to 0…76", "saving")
    assert "images change slightly" in tab.part("fix_clip_told").inner_text()
    tab.write_name("my own")
    tab.wait_for("my own.ckpt", "saving")
    predicted = tab.size
    tab.save()
    target = models / "Stable-diffusion" / "my own.ckpt"
    assert target.stat().st_size == predicted
    import zipfile

    assert zipfile.ZipFile(target).testzip() is None


def test_a_vae_goes_to_the_vae_folder(tab, models):
    tab.load("demo.vae.safetensors")
    assert tab.name == "demo-fp16.vae"
    tab.save()
    assert "VAE/demo-fp16.vae.safetensors" in files(models)
    tab.choose("demo-fp16.vae.safetensors")
    tab.click("load")
    tab.wait_for("demo-fp16.vae.safetensors is a", "identity")


WATCH_PLACES = """() => {
    window.places = new Set();
    const parts = ["save", "tabs", "half", "keep_ema", "saving"].map((part) => `#model_toolkit_${part}`);
    setInterval(() => {
        const tops = parts.map((part) => Math.round(document.querySelector(part).getBoundingClientRect().top));
        window.places.add(tops.join());
    }, 3);
}"""


def test_nothing_moves_while_answers_are_awaited(tab, slow_reads):
    """Who clicks a box while the page asks how the metric goes must not miss it."""
    slow_reads["on"] = True
    tab.load(BLOATED)
    tab.wait_for("The metric is being computed", "identity")
    tab.wait_for("/s", "progress")
    tab.run(WATCH_PLACES)
    tab.page.wait_for_timeout(1500)
    assert tab.page.locator("#model_toolkit_progress [role=progressbar]").count() == 1, "the page asks all the time"
    assert len(tab.run("[...window.places]")) == 1


def test_cancel_leaves_nothing_and_progress_is_told(tab, models, slow_reads):
    tab.load(BLOATED)
    tab.wait_for("Metric (", "identity")  # else the bar could be that of the metric
    expect(tab.page.locator("#model_toolkit_progress [role=progressbar]")).to_have_count(0)
    before, top = files(models), tab.part("basic").bounding_box()["y"]
    slow_reads["on"] = True
    tab.click("save")
    tab.wait_for("Saving ")
    tab.wait_for(" of ", "progress")
    tab.wait_for("/s", "progress")
    tab.wait_for(" left", "progress")
    first = tab.part("progress").inner_text()
    expect(tab.part("progress")).not_to_have_text(first)
    assert tab.part("basic").bounding_box()["y"] == pytest.approx(top, abs=1), "nothing jumps"
    assert any(name.endswith(".part") for name in files(models))
    # A second save, a load and a clear have to wait; the first one goes on.
    for other in ("save", "load", "clear"):
        tab.hears(other, "is still being saved")
        tab.wait_for("Saving ")
    tab.click("cancel")
    tab.wait_for("Cancelled; nothing was left behind")
    assert files(models) == before
    slow_reads["on"] = False
    tab.save()
    assert len(files(models)) == len(before) + 1


def test_bad_names_are_refused_with_the_way_out(tab, models):
    before = files(models)
    tab.click("save")
    tab.wait_for("There is nothing to save yet")
    tab.click("load")
    tab.wait_for("No model is chosen")
    tab.load("demo.vae.safetensors")
    for name, words in (
        ("../x", "cannot be a file name"),
        (".x", "begins with a dot"),
        ("con", "device name"),
        ("a:b", "cannot be a file name"),
        ("x.ckpt", "make them agree"),
        ("x" * 300, "longer than"),
        ("demo.vae", "exists already"),
        ("demo.vae.safetensors", "exists already"),
    ):
        tab.write_name(name)
        tab.wait_for(words, "saving")
        tab.click("save")
        tab.wait_for(words)
        assert tab.page.locator("#model_toolkit_status [role=alert]").count() == 1
    assert files(models) == before
    tab.write_name("good")
    tab.wait_for("good.safetensors", "saving")  # Gradio drops clicks while an answer is awaited
    tab.save()
    assert "VAE/good.safetensors" in files(models)
    tab.save("exists already")


def test_a_file_that_changes_or_goes_is_noticed(tab, models):
    tab.load("demo.vae.safetensors")
    source = models / "VAE/demo.vae.safetensors"
    os.utime(source, ns=(1, 1))
    tab.click("save")
    tab.wait_for("was changed since it was loaded; load it again")
    source.unlink()
    tab.click("save")
    tab.wait_for("is not there any more")
    tab.click("load")
    tab.wait_for("refresh the list")
    tab.click_and_wait("refresh")
    tab.load("sdxl-demo-vpred.safetensors")
    assert not any(name.startswith("VAE/") for name in files(models))


def test_forged_values_are_refused(tab, models, tmp_path):
    """The browser's own request, changed on its way: what the page never offered comes to the server."""
    (tmp_path / "outside.safetensors").write_bytes((models / "VAE/demo.vae.safetensors").read_bytes())
    before = files(models)

    def forge(old, new):
        def handle(route):
            body = route.request.post_data
            forged = body.replace(old, new) if body else body
            route.continue_(post_data=forged)

        tab.page.unroute("**/*")
        tab.page.route("**/*", handle)

    tab.choose("demo.vae.safetensors")
    forge("VAE/demo.vae.safetensors", str(tmp_path / "outside.safetensors"))
    tab.click("load")
    tab.wait_for("is not among the models")
    forge("VAE/demo.vae.safetensors", "../up.safetensors")
    tab.click("load")
    tab.wait_for("../up.safetensors · ")
    tab.page.unroute("**/*")
    tab.load("demo.vae.safetensors")
    forge('"demo-fp16.vae"', '"../../stolen"')
    tab.click("save")
    tab.wait_for("cannot be a file name")
    tab.page.unroute("**/*")
    assert files(models) == before
    assert not list(tmp_path.rglob("stolen*"))
    tab.save()


def test_two_tabs_do_not_disturb_each_other(open_tab, models, slow_reads):
    one, two = open_tab(), open_tab()
    one.load(BLOATED)
    two.load("demo.vae.safetensors")
    assert "demo.vae" not in one.part("identity").inner_text()
    one.tick("keep_ema")
    one.wait_for("UNET-v1-Demo-EMA", "identity")
    assert "bloated" not in two.part("identity").inner_text()
    slow_reads["on"] = True
    one.click("save")
    one.wait_for("Saving sd-demo-bloated")
    assert "nothing is changed" in two.status
    assert two.part("cancel").is_disabled()
    assert two.part("progress").locator("[role=progressbar]").count() == 0
    assert one.part("progress").locator("[role=progressbar]").count() == 1
    slow_reads["on"] = False
    two.save()
    one.wait_for("Saved")
    assert "demo-fp16.vae" in two.status
    assert "sd-demo-bloated" in one.status
    two.click("clear")
    two.wait_for("Nothing is loaded", "identity")
    assert "SD-v1-Demo" in one.part("identity").inner_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")
def test_text_from_files_is_shown_and_does_nothing(models, open_tab):
    hostile = "<img src=x onerror=document.title='owned'>\u202e\n.safetensors"
    (models / "VAE" / hostile).write_bytes((models / "VAE/demo.vae.safetensors").read_bytes())
    tab = open_tab()
    tab.load("<img src=x")
    assert "\\u202e\\x0a" in tab.part("identity").inner_text()
    assert tab.page.locator("#model_toolkit img[src=x]").count() == 0
    assert tab.page.title() != "owned"
    pick(tab.part("tabs"), "Advanced")
    assert "\\u202e\\x0a" in tab.part("edits").inner_text()
    tab.save()
    assert "VAE/_img src=x" in "".join(files(models)), "the name that is proposed can be written"
    assert tab.page.locator("#model_toolkit img[src=x]").count() == 0
    assert tab.page.title() != "owned"


COLOURS = """() => {
    const seen = (node) => {
        const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
        let colour = numbers(getComputedStyle(node).color), back = [0, 0, 0, 0];
        for (let up = node; up && !(back[3] === undefined || back[3] > 0.5); up = up.parentElement) {
            back = numbers(getComputedStyle(up).backgroundColor);
        }
        const light = (rgb) => {
            const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
                .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const [a, b] = [light(colour), light(back)].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), light(back)];
    };
    return ["identity p", "saving dd", "status p", "components td"]
        .flatMap((part) => [...document.querySelectorAll("#model_toolkit_" + part)]).map(seen);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_readable_in_light_and_dark_narrow_and_wide(open_tab, theme, width):
    tab = open_tab(theme, width)
    tab.load(BLOATED)
    seen = tab.run(COLOURS)
    assert len(seen) > 10
    assert min(contrast for contrast, _ in seen) > 4.5
    assert all((back < 0.2) is (theme == "dark") for _, back in seen)
    assert tab.run("document.documentElement.scrollWidth") <= width
    expect(tab.part("components").locator("td").filter(has_text="MB").first).to_be_visible()
    assert tab.cut("components") == []
    pieces = tab.run(
        "[...document.querySelectorAll('#model_toolkit .model-toolkit-piece')]"
        ".map((e) => getComputedStyle(e).backgroundColor + getComputedStyle(e).backgroundImage)"
    )
    assert len(set(pieces)) >= 5, "each role has its own look"


def test_everything_is_reached_by_the_keyboard(tab):
    tab.choose("demo.vae.safetensors")
    tab.part("source").locator("input").first.focus()
    reached = []
    for _ in range(8):
        tab.page.keyboard.press("Tab")
        reached.append(tab.run("(document.activeElement.closest('[id^=model_toolkit_]') || document.activeElement).id"))
        if reached[-1] == "model_toolkit_load":
            tab.page.keyboard.press("Enter")
            tab.wait_for("nothing is changed on disk yet")
    order = [name for name in reached if name]
    wanted = [f"model_toolkit_{name}" for name in ("refresh", "load", "name", "precision", "format", "save", "clear")]
    assert [name for name in order if name in wanted] == wanted
    assert "model_toolkit_poll" not in order
    assert re.search(r"aria-live|role=\"(status|alert)\"", tab.part("status").inner_html())
