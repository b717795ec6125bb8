"""Making a report for the tab, and handing out its files: what the browser gets, and what nobody else gets."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("gradio")

from playwright.sync_api import expect

from lib_toolkit.errors import CancelledError, FormatError, TargetError
from lib_toolkit.progress import Progress
from lib_toolkit.ui import handouts, reporting
from lib_toolkit.ui.drafts import stamp_of
from lib_toolkit.ui.handouts import HANDED_OUT, Handouts
from tests.making import safetensors_bytes
from tests.ui.reporting_page import serving_page

MODEL = "Stable-diffusion/sd-demo-bloated.ckpt"
ACTS = '</ul><img src=x onerror="window.acted=1">.${window.acted=2}.{{window.acted=3}}'


@pytest.fixture
def model(demo, tmp_path):
    path = tmp_path / "a model (1).ckpt"
    shutil.copyfile(demo / MODEL, path)
    return path


def make(path, progress=None):
    return reporting.make(path, stamp_of(path), progress or Progress())


def test_a_report_in_three_forms(model):
    phases = []
    made = make(model, Progress(lambda status: phases.append(status.phase)))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert made.html_path.name == "a model (1).report.html"
    assert made.json_path.name == "a model (1).report.json"
    assert digest in made.html_path.read_text("utf-8")
    assert json.loads(made.json_path.read_text("utf-8"))["hashes"]["sha256"] == digest
    assert f'data-model-toolkit-copy="{digest}"' in made.summary_html
    assert "intact" in made.summary_html
    assert phases[0].startswith("opening")
    assert "reading" in phases
    assert phases[-1] == "writing the report"


def test_a_file_that_was_changed_or_is_gone_is_said(model):
    stamp = stamp_of(model)
    os.utime(model, ns=(1, 1))
    with pytest.raises(FormatError, match=r"a model \(1\)\.ckpt was changed since it was loaded; load it again"):
        reporting.make(model, stamp, Progress())
    model.unlink()
    with pytest.raises(FormatError, match=r"a model \(1\)\.ckpt is not there any more"):
        reporting.make(model, stamp, Progress())


def test_cancel_leaves_no_file(model, monkeypatch):
    kept = Handouts()
    monkeypatch.setattr(reporting, "HANDED_OUT", kept)
    phases = []
    progress = Progress(lambda status: phases.append(status.phase), lambda: "reading" in phases)
    with pytest.raises(CancelledError):
        make(model, progress)
    assert kept._folder is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["CON.ckpt", "a\nb.ckpt", "x" * 249 + ".ckpt", 'a"<b>.ckpt'])
def test_names_that_are_none_elsewhere_become_a_plain_one(tmp_path, name):
    odd = tmp_path / name
    odd.write_bytes(safetensors_bytes({"a": ("F16", (1,), bytes(2))}))
    assert make(odd).html_path.name == "model.report.html"


def test_handouts_are_limited_in_number_and_size():
    kept = Handouts(most=3, size=100)
    paths = [kept.add({"a.html": str(number)})[0] for number in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    (large,) = kept.add({"a.html": "x" * 99})
    assert [path.exists() for path in paths] == [False, False, False, False, True]
    (larger,) = kept.add({"a.html": "x" * 200})
    assert larger.exists()
    assert not large.exists()
    kept.close()
    assert not larger.exists()


def test_handouts_are_kept_to_the_byte():
    kept = Handouts()
    words, picture = kept.add({"a.html": "a\nb\udc80", "b.png": b"\x89PNG\r\n\x1a\n\xff"})
    assert words.read_bytes() == b"a\nb?"
    assert picture.read_bytes() == b"\x89PNG\r\n\x1a\n\xff"
    assert kept.holds(picture)
    kept.close()


def test_handouts_grow_old(monkeypatch):
    kept = Handouts(seconds=60)
    (old,) = kept.add({"a.html": "old"})
    (new,) = kept.add({"a.html": "new"})
    later = time.monotonic() + 61
    monkeypatch.setattr(handouts.time, "monotonic", lambda: later)
    assert not kept.holds(old)
    assert not old.exists()
    assert new.exists()
    kept.close()


def test_handouts_are_private_and_known_by_their_bytes(tmp_path):
    kept = Handouts()
    (given,) = kept.add({"a.html": "the report"})
    assert given.parent.parent.stat().st_mode & 0o077 == 0 or os.name == "nt"
    copy, other, renamed = tmp_path / "b.html", tmp_path / "a.html", tmp_path / "a.txt"
    copy.write_text("the report")
    other.write_text("the other.")
    renamed.write_text("the report")
    assert kept.holds(given)
    assert kept.holds(copy)
    assert not kept.holds(other)
    assert not kept.holds(renamed)
    assert not kept.holds(tmp_path)
    assert not kept.holds(tmp_path / "nowhere.html")
    kept.close()
    assert not kept.holds(copy)


def test_gradios_copies_are_private_and_go_with_the_process():
    told = "from lib_toolkit.ui.handouts import private_folder; print(private_folder(), end='')"
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", f"{told}; input()"], input="\n", capture_output=True, text=True, check=True, cwd=root
    )
    folder = Path(answer.stdout)
    assert folder.name.startswith("model-toolkit-")
    assert not folder.exists()
    mine = handouts.private_folder()
    assert mine.is_dir()
    assert mine.stat().st_mode & 0o077 == 0 or os.name == "nt"


def test_a_full_disk_is_said_and_leaves_nothing(monkeypatch):
    kept = Handouts()
    kept.add({"a.html": "first"})

    def full(path, content):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handouts, "_written", full)
    with pytest.raises(TargetError, match=r"b\.html cannot be written .*No space left on device; make room"):
        kept.add({"b.html": "second"})
    assert len(list(kept._folder.iterdir())) == 1
    kept.close()


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """A model whose names would act wherever they become markup or a template."""
    path = tmp_path_factory.mktemp("acting") / "acting.safetensors"
    table = dict.fromkeys((ACTS, f"{ACTS}.a", "plain.a", "plain.b"), ("F16", (1,), b"\x00\x00"))
    path.write_bytes(safetensors_bytes(table, {ACTS: ACTS}))
    return path


@pytest.fixture(scope="module")
def address(acting):
    with serving_page(acting) as address:
        yield address


@pytest.fixture
def page(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.click("#model_toolkit_report")
    page.wait_for_selector(".model-toolkit-tree")
    page.wait_for_selector("#model_toolkit_report_json a[href]")
    yield page
    page.close()


def ask(address, path, method="GET", **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request(method, quote(path, safe="/=?"), headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def link_of(page):
    return urlsplit(page.locator("#model_toolkit_report_html a[href]").first.get_attribute("href")).path


def test_both_files_can_be_downloaded(page, acting):
    digest = hashlib.sha256(acting.read_bytes()).hexdigest()
    for part, ending in (("html", ".report.html"), ("json", ".report.json")):
        with page.expect_download() as waiting:
            page.locator(f"#model_toolkit_report_{part} a[href]").first.click()
        assert waiting.value.suggested_filename == f"acting{ending}"
        assert digest in Path(waiting.value.path()).read_text("utf-8")


def test_the_report_opens_in_a_page_of_its_own(page):
    with page.expect_popup() as waiting:
        page.click("[data-model-toolkit-open]")
    report = waiting.value
    report.wait_for_selector("#tree > li")
    assert report.title() == "acting.safetensors: model report"
    assert report.evaluate("[window.opener, window.acted ?? null]") == [None, None]
    report.fill("#search", "plain")
    expect(report.locator("#count")).to_contain_text("2")
    report.close()


HIDE_LINKS = """() => {
    const links = [...document.querySelectorAll("#model_toolkit_report_html a[href]")].map((a) => [a, a.parentElement]);
    links.forEach(([a]) => a.remove());
    window.drawLinks = () => links.forEach(([a, place]) => place.append(a));
}"""


def test_a_report_whose_link_is_drawn_after_its_button_opens_too(page):
    page.evaluate(HIDE_LINKS)
    with page.expect_popup() as waiting:
        page.click("[data-model-toolkit-open]")
        page.evaluate("setTimeout(window.drawLinks, 500)")
    waiting.value.wait_for_selector("#tree > li")
    waiting.value.close()
    page.evaluate(HIDE_LINKS)
    page.click("[data-model-toolkit-open]")
    page.locator(".model-toolkit-open [role=status]").filter(has_text="nothing to open yet").wait_for()


def test_a_report_that_is_gone_is_said(page):
    page.route(re.compile("file="), lambda route: route.fulfill(status=404))
    with page.expect_popup():
        page.click("[data-model-toolkit-open]")
    told = page.locator(".model-toolkit-open [role=status]")
    told.filter(has_text="not there any more; make it again").wait_for()


def test_a_browser_that_opens_no_page_is_said(page):
    page.evaluate("() => { window.open = () => null; }")
    page.click("[data-model-toolkit-open]")
    page.locator(".model-toolkit-open [role=status]").filter(has_text="allow pop-ups, or download").wait_for()


def test_nothing_of_the_file_acts_in_the_tab(page):
    assert page.evaluate("window.acted ?? null") is None
    assert page.locator("#model_toolkit_tensors img, #model_toolkit_report_view img").count() == 0
    assert page.locator("#model_toolkit_tensors").first.text_content().count("${window.acted=2}") == 1


def test_files_that_were_not_handed_out_stay_closed(page, address, acting):
    path = link_of(page)
    route, _, copy = path.partition("file=")
    answer, body = ask(address, path)
    assert answer.status == 200
    assert answer.getheader("content-disposition") == "attachment"
    assert answer.getheader("content-security-policy") == "default-src 'none'; sandbox"
    assert b"acting.safetensors" in body
    for other in (str(acting), __file__, "/etc/hostname", f"{copy}/../../x.html", f"{copy}\0", "", "http://x/a.html"):
        assert ask(address, f"{route}file={other}")[0].status == 404
    assert ask(address, path, "POST")[0].status == 404
    assert ask(address, path, Host="evil.example")[0].status == 403
    assert ask(address, path, Origin="https://evil.example")[0].status == 403


def test_a_copy_that_is_no_longer_the_report_is_not_served(page, address):
    path = link_of(page)
    copy = Path(path.partition("file=")[2])
    before = copy.read_bytes()
    try:
        copy.write_bytes(b"x" * len(before))
        assert ask(address, path)[0].status == 404
    finally:
        copy.write_bytes(before)
    assert HANDED_OUT.holds(copy)
