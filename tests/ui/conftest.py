"""A served tab on a folder of demo models, and a browser to look at it."""

from __future__ import annotations

import shutil

import pytest

from lib_toolkit.demo import make_demo
from tests.conftest import PATIENCE
from tests.ui.driving import Tab
from tests.ui.story import prepare

COPIED = (
    "Stable-diffusion/sd-demo-bloated.ckpt",
    "Stable-diffusion/sd-demo-broken-ids.safetensors",
    "Stable-diffusion/xl/sdxl-demo-vpred.safetensors",
    "VAE/demo.vae.safetensors",
)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder)
    return folder


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


def fill(folder, demo, names=COPIED):
    """Fresh copies of some of the demo models, and nothing else."""
    for item in folder.iterdir():
        shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(demo / name, folder / name)
    return folder


@pytest.fixture
def models(demo, served_folder):
    """The folder that the server serves."""
    return fill(served_folder, demo)


@pytest.fixture(scope="session")
def server(served_folder):
    from lib_toolkit.ui.launch import serving

    with serving(served_folder) as address:
        yield address


@pytest.fixture(scope="session")
def browser(chromium):
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def open_tab(browser, server, models):
    """Opens the page in a new tab of one browser; afterwards no page may have asked anyone but the server."""
    pages, strangers = [], []

    def note(address):
        if not address.startswith((server, server.replace("http", "ws"), "data:", "blob:")):
            strangers.append(address)

    def opened(theme="light", width=1280, height=900):
        page = browser.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.on("request", lambda request: note(request.url))
        page.goto(f"{server}/?__theme={theme}")
        tab = Tab(page)
        tab.wait_for("found")
        return tab

    yield opened
    for page in pages:
        page.close()
    assert strangers == []


@pytest.fixture
def tab(open_tab):
    return open_tab()


@pytest.fixture
def story_models(demo, tmp_path):
    """A models folder with what the story needs."""
    folder = tmp_path / "models"
    folder.mkdir()
    fill(folder, demo, (*COPIED, "Stable-diffusion/sd-demo-wrong-vae.safetensors"))
    prepare(folder)
    return folder
