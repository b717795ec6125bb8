"""One visit to the tab, from the first look to the last: told to any page that shows it, checked on disk.

The story knows nothing of where it happens. The suite tells it to the standalone server and to the fake WebUI. As a
script it drives a WebUI that runs already and whose models lie below ``HOSTLAB_DATA``/models:

    HOSTLAB_URL=http://127.0.0.1:7860 HOSTLAB_DATA=DIR HOSTLAB_OUT=DIR python -m tests.ui.story [--model NAME] …

It then prints each step, leaves a screenshot of each in ``HOSTLAB_OUT``, and ends with status 1 if a step failed or
the page reported an error.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from playwright.sync_api import Error, expect
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.ui.driving import Tab, read_checkpoint

PREFIXES = {
    "UNET": ("model.diffusion_model.",),
    "VAE": ("first_stage_model.",),
    "CLIP": ("cond_stage_model.transformer.", "cond_stage_model.model."),
}
"""Where the keys of a class stand in a checkpoint of SD 1 or 2, by the first part of the class's name."""

HOST_LISTS = "#setting_sd_model_checkpoint, .model_selection"
"""The WebUI's own list of checkpoints: A1111's and its kin's, Forge's."""

PATIENCE = 60_000
"""Milliseconds for what reads or writes a whole model."""


@dataclass(frozen=True)
class Cast:
    """Who plays: what each is called in the tab. The defaults are demonstration models."""

    model: str = "sd-demo-bloated.ckpt"
    vae: str = "story.vae.safetensors"
    other: str = "sdxl-demo-vpred.safetensors"
    new: str = "NEW SD-v1-Demo"
    unet_class: str = "UNET-v1-Demo"
    vae_class: str = "VAE-v1-Demo"
    clip_class: str = "CLIP-v1-Demo"
    finding: str = "keep_ema"


def prepare(models: Path) -> None:
    """Put a VAE that is not the model's own beside the demonstration models, made by the safetensors library."""
    prefix = PREFIXES["VAE"][0]
    other = load_file(models / "Stable-diffusion" / "sd-demo-wrong-vae.safetensors")
    vae = {key[len(prefix) :]: array.astype("<f4") for key, array in other.items() if key.startswith(prefix)}
    (models / "VAE").mkdir(exist_ok=True)
    save_file(vae, models / "VAE" / Cast().vae)


def pick(scope, title):
    """Click a tab by its title: it has a role of its own since Gradio 4, and is a plain button before."""
    tabs = scope.get_by_role("tab", name=title, exact=True)
    (tabs if tabs.count() else scope.get_by_role("button", name=title, exact=True)).first.click()


def go(page, address) -> None:
    """Open the address. After Reload UI the WebUI's own page loads itself again, which may abort or hold up ours."""
    for left in (3, 2, 1, 0):
        try:
            page.goto(address, timeout=PATIENCE / 4)
            return
        except Error as error:
            passing = ("ERR_ABORTED", "interrupted by another", "Timeout")
            if not left or not any(words in str(error) for words in passing):
                raise


def enter(page, address) -> Tab:
    """Open the address and come to the tab, which a WebUI shows among others."""
    go(page, address)
    page.wait_for_selector("#tabs, #model_toolkit", state="attached", timeout=PATIENCE)
    if page.locator("#tabs").count():
        pick(page.locator("#tabs").first, "Toolkit")
    return Tab(page)


def server_mark(address: str) -> str | None:
    """What tells one server of a WebUI from the next at the same address; None while none answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("app_id", "gradio_api/app_id"):
        with suppress(OSError, ValueError):
            return str(json.load(opener.open(f"{address.rstrip('/')}/{path}", timeout=5))["app_id"])
    return None


def reload_ui(page, address) -> None:
    """Press Reload UI on the Settings page and wait for the next server."""
    before = server_mark(address)
    assert before is not None
    pick(page.locator("#tabs").first, "Settings")
    page.locator("#settings_restart_gradio").first.click()
    deadline = time.monotonic() + PATIENCE / 1000
    while server_mark(address) in {None, before}:
        assert time.monotonic() < deadline, "the WebUI came not back after Reload UI"
        page.wait_for_timeout(100)


def readable(path: Path):
    """A function from key to array, and the keys: the library's reader, or one of our own for checkpoints."""
    if path.suffix == ".safetensors":
        file = safe_open(str(path), "np")
        return file.get_tensor, set(file.keys())
    arrays = read_checkpoint(path)
    arrays = {key: value for key, value in arrays.get("state_dict", arrays).items() if hasattr(value, "dtype")}
    return arrays.__getitem__, set(arrays)


def of_class(keys, cls: str) -> set[str]:
    return {key for key in keys if key.startswith(PREFIXES[cls.partition("-")[0]])}


def halved(array):
    return array.astype(np.float16) if array.dtype == np.float32 else array


class Story:
    """The steps in their order. ``told(step, page)`` is called after each; ``new_page()`` opens an empty page.

    ``models`` is the folder with Stable-diffusion/, VAE/ … that the tab works in.
    """

    def __init__(self, new_page, address: str, models: Path, cast: Cast = Cast(), told=lambda step, page: None):
        self.new_page, self.address, self.models, self.cast, self.told = new_page, address, models, cast, told
        self.tab: Tab
        self.made: dict[str, Path] = {}

    def tell(self) -> None:
        for step in self.steps():
            step()
            self.told(step.__name__, self.tab.page)

    def steps(self) -> tuple[Callable[[], None], ...]:
        return (
            self.come_in,
            self.load,
            self.toggle_a_finding,
            self.replace_the_vae,
            self.export_two_components,
            self.build_it_anew,
            self.compare_both_ways,
            self.find_it_in_the_lists_of_the_host,
            self.read_the_report,
            self.compare_two_models,
            self.autoprune_a_download,
            self.use_two_pages,
            self.reload_the_ui,
            self.reload_the_ui_again,
        )

    @property
    def in_webui(self) -> bool:
        return self.tab.page.locator("#tabs").count() > 0

    def come_in(self) -> None:
        self.tab = enter(self.new_page(), self.address)
        self.tab.wait_for("models found")

    def panel(self, title: str) -> None:
        pick(self.tab.part("tabs"), title)

    def done(self, words: str, tab: Tab | None = None) -> None:
        """Wait until the status line tells of a success in these words."""
        tab = tab or self.tab
        tab.page.bring_to_front()
        expect(tab.part("status").locator(".model-toolkit-good")).to_contain_text(words, timeout=PATIENCE)

    def load(self) -> None:
        self._open(self.cast.model)
        assert "intact" in self.tab.part("identity").inner_text()

    def _open(self, name: str, tab: Tab | None = None) -> None:
        tab = tab or self.tab
        tab.choose(name)
        tab.click("load")
        self.done(name.rpartition("/")[2], tab)

    def toggle_a_finding(self) -> None:
        self.panel("Basic")
        size = self.tab.size
        self.tab.tick(self.cast.finding)
        changed = self.tab.wait_for_size(size)
        self.tab.tick(self.cast.finding)
        assert self.tab.wait_for_size(changed) == size

    def replace_the_vae(self) -> None:
        """The easy way to a model with another VAE."""
        self._import(self.cast.vae_class, self.cast.vae)
        self.tab.page.wait_for_selector("[data-model-toolkit-unsaved]", state="attached")
        self._save("story-easy", "easy")
        expect(self.tab.page.locator("[data-model-toolkit-unsaved]")).to_have_count(0)

    def _import(self, cls: str, source: str) -> None:
        self.panel("Advanced")
        before = self.tab.part("edits").inner_text()
        self._aim(cls)
        self.tab.choose(source, "import_source")
        self.tab.click("import")
        self.tab.wait_for(source.rpartition("/")[2], "edits")
        expect(self.tab.part("edits")).not_to_have_text(before)

    def _aim(self, cls: str) -> None:
        """Choose a class; the page then proposes a name for its export."""
        if self.tab.part("class").locator("input").first.input_value() != cls:
            self.tab.choose(cls, "class")

    def _save(self, name: str, role: str) -> None:
        self.tab.write_name(name)
        self.tab.click("save")
        self.done(f"{name}.safetensors")
        self.made[role] = self._found(f"{name}.safetensors")
        size = self.made[role].stat().st_size
        assert f"{size:,} bytes" in self.tab.status, "the status tells the size on disk"

    def _found(self, name: str) -> Path:
        found = list(self.models.rglob(name))
        assert len(found) == 1, f"{name} lies at {found}"
        return found[0]

    def export_two_components(self) -> None:
        """The first half of the hard way."""
        self.tab.click("clear")
        self.tab.wait_for("Nothing is loaded", "identity")
        self._open(self.cast.model)
        self.panel("Advanced")
        for role, cls in (("unet", self.cast.unet_class), ("clip", self.cast.clip_class)):
            self._aim(cls)
            box = self.tab.part("export_name").locator("input, textarea").first
            expect(box).to_have_value(re.compile(role))
            box.fill(f"story-{role}")
            box.press("Tab")
            self.tab.click("export")
            self.done(f"story-{role}")
            self.made[role] = self._found(f"story-{role}*.safetensors")

    def build_it_anew(self) -> None:
        """The second half: an empty model, filled with the exported parts and the VAE."""
        self.tab.click("clear")
        self.tab.wait_for("Nothing is loaded", "identity")
        self.tab.choose(self.cast.new)
        self.tab.click("load")
        self.tab.wait_for(self.cast.clip_class, "identity")
        self._import(self.cast.unet_class, self.made["unet"].name)
        self._import(self.cast.clip_class, self.made["clip"].name)
        self._import(self.cast.vae_class, self.cast.vae)
        self._save("story-hard", "hard")

    def compare_both_ways(self) -> None:
        """Both files have the same component tensors: those of the model but for the VAE, at half precision."""
        easy, easy_keys = readable(self.made["easy"])
        hard, hard_keys = readable(self.made["hard"])
        source, source_keys = readable(self._found(self.cast.model))
        vae, vae_keys = readable(self._found(self.cast.vae))
        differing = 0
        for cls in (self.cast.unet_class, self.cast.clip_class, self.cast.vae_class):
            keys = of_class(easy_keys, cls)
            assert keys == of_class(hard_keys, cls) and len(keys) > 30
            for key in keys:
                ours, expected = easy(key), source(key) if key in source_keys else None
                assert ours.tobytes() == hard(key).tobytes() and ours.dtype == hard(key).dtype, key
                if cls == self.cast.vae_class:
                    differing += expected is None or halved(expected).tobytes() != ours.tobytes()
                    expected = vae(key.removeprefix(PREFIXES["VAE"][0]))
                assert ours.tobytes() == halved(expected).tobytes(), key
        assert differing > len(vae_keys) // 2, "the VAE is the other one"
        rest = easy_keys - hard_keys
        assert not hard_keys - easy_keys
        assert not any(of_class(rest, cls) for cls in PREFIXES), "only buffers and markers are left to differ"

    def find_it_in_the_lists_of_the_host(self) -> None:
        """The WebUI offers the new checkpoints, without a restart, and so does the tab."""
        self.tab.choose(self.made["easy"].name)
        if not self.in_webui:
            return
        box = self.tab.page.locator(HOST_LISTS).first.locator("input").first
        box.click()
        box.fill("story-")
        options = self.tab.page.locator("ul.options li:visible, ul[role=listbox] li:visible")
        for role in ("easy", "hard"):
            expect(options.filter(has_text=self.made[role].stem).first).to_be_visible()
        box.blur()
        expect(options).to_have_count(0)

    def read_the_report(self) -> None:
        """The detailed report of the new file: its summary, the page in a window of its own, both downloads."""
        name = self.made["hard"].name
        self._open(name)
        self.panel("Advanced")
        self.tab.click("report")
        expect(self.tab.part("report_view")).to_contain_text(self.cast.vae_class, timeout=PATIENCE)
        expect(self.tab.part("report_html").locator("a").first).to_be_visible()
        with self.tab.page.context.expect_page() as opened:
            self.tab.part("report_open").locator("a, button").first.click()
        expect(opened.value.locator("body")).to_contain_text(name)
        opened.value.close()
        html, data = (self._downloaded(part) for part in ("report_html", "report_json"))
        self.tab.part("report_view").locator("button", has_text="Compare").click()
        expect(self.tab.part("compare_pair")).to_be_visible()
        assert html.lstrip().lower().startswith("<!doctype html") and name in html
        assert name in json.dumps(json.loads(data))

    def _downloaded(self, part: str) -> str:
        with self.tab.page.expect_download() as download:
            self.tab.part(part).locator("a").first.click()
        return Path(download.value.path()).read_text(encoding="utf-8")

    def compare_two_models(self) -> None:
        """The new file with the one that it was made of: the VAE alone is another one."""
        self.panel("Compare")
        self.tab.choose(self.cast.model, "compare_a")
        self.tab.choose(self.made["hard"].name, "compare_b")
        self.tab.tick("compare_at_lower")
        self.tab.click("compare_pair")
        self.done("Compared")
        told = self.tab.part("compare_view")
        for words in ("Same UNet", "Same text encoder", "layers of the VAE changed"):
            expect(told).to_contain_text(words)
        expect(told.locator("svg .u-block").first).to_be_visible()
        data = json.loads(self._downloaded("compare_json"))
        assert [group["changed_tensors"] for group in data["components"] if group["name"] == "UNet"] == [0]

    def autoprune_a_download(self) -> None:
        """A VAE that lies in the drop folder is filed away by a run that the panel shows, in its usual format."""
        drop = self.models / "Autoprune"
        drop.mkdir(exist_ok=True)
        shutil.copyfile(self._found(self.cast.vae), drop / "story-dropped.safetensors")
        self.panel("Autoprune")
        self.tab.wait_for("story-dropped.safetensors", "autoprune_view")
        self.tab.click("autoprune_run")
        expect(self.tab.part("autoprune_view")).to_contain_text("now VAE/story-dropped.pt", timeout=PATIENCE)
        assert (drop / "Done" / "story-dropped.safetensors").is_file()
        get, keys = readable(self.models / "VAE" / "story-dropped.pt")
        wanted, _ = readable(self._found(self.cast.vae))
        assert all(get(key).tobytes() == halved(wanted(key)).tobytes() for key in keys)

    def use_two_pages(self) -> None:
        """What is done in a second page leaves the first as it is."""
        other = enter(self.new_page(), self.address)
        self._open(self.cast.other, other)
        assert self.made["hard"].name in self.tab.part("identity").inner_text()
        assert self.made["hard"].name not in other.part("identity").inner_text()
        other.click("clear")
        other.wait_for("Nothing is loaded", "identity")
        other.page.close()
        self.tab.page.bring_to_front()
        assert self.made["hard"].name in self.tab.part("identity").inner_text()

    def reload_the_ui(self) -> None:
        """After Reload UI the tab works as before. Outside of a WebUI the page alone is loaded again."""
        if self.in_webui:
            reload_ui(self.tab.page, self.address)
        self.tab = enter(self.tab.page, self.address)
        self.tab.wait_for("models found")
        self._open(self.cast.vae)
        assert self.cast.vae_class in self.tab.part("identity").inner_text()

    def reload_the_ui_again(self) -> None:
        self.reload_the_ui()


def main() -> int:
    import argparse
    import os
    import traceback

    from tests.conftest import find_chromium, running_chromium

    parser = argparse.ArgumentParser(description="Tell the story to a WebUI that runs (HOSTLAB_URL, HOSTLAB_DATA).")
    for field in fields(Cast):
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default)
    cast = Cast(**vars(parser.parse_args()))
    models, out = Path(os.environ["HOSTLAB_DATA"]) / "models", Path(os.environ["HOSTLAB_OUT"])
    if cast.vae == Cast.vae:
        prepare(models)
    errors: list[str] = []
    with running_chromium(find_chromium()) as browser:
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        context.on("weberror", lambda error: errors.append(getattr(error.error, "stack", None) or str(error.error)))
        begun = time.monotonic()

        def told(step, page):
            nonlocal begun
            page.screenshot(path=out / f"{step}.png", full_page=True)
            print(f"{step.replace('_', ' ')}: {time.monotonic() - begun:.1f} s", flush=True)
            begun = time.monotonic()

        try:
            Story(context.new_page, os.environ["HOSTLAB_URL"], models, cast, told).tell()
        except Exception:
            traceback.print_exc()
            for number, page in enumerate(context.pages):
                page.screenshot(path=out / f"failed-{number}.png", full_page=True)
            errors.append("a step failed")
    print("errors:", errors)
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
