"""Options of the suite."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # Two tabs are used in turn: neither may be put to sleep.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PATIENCE = 30_000
"""Milliseconds that a page may take for anything: tests share slow machines with other work."""

UNIX_CALLS = ("preadv", "pread", "pwritev", "pwrite", "link", "posix_fallocate")


def pytest_addoption(parser):
    parser.addoption("--bare-os", action="store_true", help="run without the system calls that Windows lacks")


def pytest_configure(config):
    if config.getoption("--bare-os"):
        for name in UNIX_CALLS:
            if hasattr(os, name):
                delattr(os, name)
        from lib_toolkit import temporary

        temporary.fcntl = None


def pytest_collection_modifyitems(config, items):
    """What drives a browser is tried once more when it fails: on a machine that does much else a page may be too slow
    for a person too, and the summary tells of it. What fails twice has failed."""
    if config.pluginmanager.hasplugin("rerunfailures"):
        for item in items:
            if "chromium" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.flaky(reruns=1))


def find_chromium():
    """The path of the system's Chromium or Chrome, None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@contextmanager
def running_chromium(path):
    """A browser that is used with patience."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def chromium():
    """Chromium of the system; without one these tests are skipped, or fail where they are asked for."""
    found = find_chromium()
    if found is None:
        sentence = "There is no Chromium or Chrome on PATH; install one, or name it in the environment as CHROMIUM."
        if os.environ.get("MODEL_TOOLKIT_REQUIRE_BROWSER") == "1":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with running_chromium(found) as browser:
        yield browser
