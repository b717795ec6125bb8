"""Using the tab as a person does, whatever the version of Gradio draws; and reading checkpoints without the package."""

from __future__ import annotations

import collections
import pickle
import re
import zipfile

import numpy as np
from playwright.sync_api import expect

from tests.conftest import PATIENCE

SOURCE = "#model_toolkit_source"


class Tab:
    """One open page."""

    def __init__(self, page):
        self.page = page
        page.wait_for_selector("#model_toolkit_load")

    def part(self, name):
        # Gradio 3 gives the id to an inner element too, which is why only the first one counts.
        # A browser does not draw tabs behind another one, and waiting for them takes seconds.
        self.page.bring_to_front()
        return self.page.locator(f"#model_toolkit_{name}").first

    def wait_for(self, words, part="status"):
        """Wait until a part of the page says ``words``."""
        expect(self.part(part)).to_contain_text(words)

    @property
    def status(self):
        return self.part("status").inner_text().strip()

    @property
    def size(self):
        """The predicted size in bytes."""
        return int(re.sub(r"\D", "", self.part("size").inner_text()))

    def wait_for_size(self, other_than):
        expect(self.part("size")).not_to_have_text(f"{other_than:,} bytes")
        return self.size

    def click(self, name):
        self.part(name).click()

    def click_and_wait(self, name):
        """Click, and wait for the server's answer: a choice that is made before it comes may be lost."""
        with self.page.expect_response(
            lambda response: response.request.method == "POST" and "predict" in response.url
        ):
            self.click(name)
        self.page.wait_for_timeout(200)

    def hears(self, button, words):
        """Click, and again where other news has taken the answer's place too soon, until the status says ``words``."""
        for left in (4, 3, 2, 1, 0):
            self.click_and_wait(button)
            try:
                expect(self.part("status")).to_contain_text(words, timeout=PATIENCE / 5)
                return
            except AssertionError:
                if not left:
                    raise

    def choose(self, words, part="source"):
        """Filter a dropdown by typing and take the option with these words."""
        box = self.part(part).locator("input").first
        box.click()
        box.fill("")
        box.press_sequentially(words)
        options = self.page.locator("ul.options li:visible, ul[role=listbox] li:visible")
        wanted = options.filter(has_text=words).first
        chosen = wanted.inner_text().replace("✓", "").strip()
        self.page.wait_for_timeout(150)  # Gradio opens the list anew a moment after each key
        wanted.dispatch_event("mousedown")
        expect(box).to_have_value(chosen)
        expect(options).to_have_count(0)

    def load(self, words):
        self.choose(words)
        self.click("load")
        self.wait_for("nothing is changed on disk yet")
        self.wait_for(words.rpartition("/")[2], "identity")

    def write_name(self, name):
        box = self.part("name").locator("input, textarea").first
        box.fill(name)
        box.press("Tab")

    @property
    def name(self):
        return self.part("name").locator("input, textarea").first.input_value()

    def tick(self, name):
        self.part(name).locator("input[type=checkbox]").click()

    def ticked(self, name):
        return self.part(name).locator("input[type=checkbox]").is_checked()

    def save(self, words="Saved"):
        self.click("save")
        self.wait_for(words)

    def cut(self, part):
        """What of a part's tables cannot be seen without moving them sideways: texts of cells and buttons."""
        return self.part(part).evaluate(
            """(part) => [...part.querySelectorAll(".model-toolkit-scroll")].flatMap((scroll) => {
                const right = scroll.getBoundingClientRect().right + 1;
                return [...scroll.querySelectorAll("td, td *")]
                    .filter((e) => e.getBoundingClientRect().right > right || e.scrollWidth > e.clientWidth + 1 &&
                        getComputedStyle(e).display !== "inline").map((e) => e.textContent);
            })"""
        )

    def run(self, script):
        return self.page.evaluate(script)


_DTYPES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4"}


class _Unpickler(pickle.Unpickler):
    """Rebuilds the dense tensors of a torch zip as arrays, from what the format says, without torch."""

    def __init__(self, archive, root):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, size, stride, *rest: storage[offset : offset + int(np.prod(size))].reshape(
                size
            )
        return _DTYPES[name] if name in _DTYPES else {"OrderedDict": collections.OrderedDict}[name]

    def persistent_load(self, pid):
        _, dtype, key, _, _ = pid
        return np.frombuffer(self.archive.read(f"{self.root}/data/{key}"), dtype)


def read_checkpoint(path):
    """All of a torch zip's top-level object, tensors as arrays."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        return _Unpickler(archive, root).load()
