"""The whole story (see story.py) where users meet the tab: in our own server and in WebUIs of each kind."""

from __future__ import annotations

import pytest

from lib_toolkit.ui.launch import serving
from tests.ui.fake_webui import FLAVOURS, fake_webui
from tests.ui.story import Story


@pytest.fixture
def story(browser, story_models):
    """Makes a story at an address; afterwards no page may have reported an error."""
    pages, errors = [], []

    def new_page():
        page = browser.new_page()
        page.set_viewport_size({"width": 1400, "height": 1000})
        page.on("pageerror", lambda error: errors.append(str(error)))
        pages.append(page)
        return page

    yield lambda address: Story(new_page, address, story_models)
    for page in pages:
        page.close()
    assert errors == []


def test_in_our_own_server(story, story_models):
    with serving(story_models) as address:
        story(address).tell()


def test_in_a_webui(story, story_models):
    with fake_webui(story_models.parent, FLAVOURS[0]) as webui:
        story(webui.address).tell()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_in_a_webui_without_its_queue(story, story_models, flavour):
    with fake_webui(story_models.parent, flavour, "--no-gradio-queue") as webui:
        told = story(webui.address)
        for step in (told.come_in, told.load, told.toggle_a_finding, told.replace_the_vae, told.reload_the_ui):
            step()
