"""The Autoprune panel without a browser: runs that belong to nobody, the record of them, and who may begin one."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

pytest.importorskip("gradio")

from lib_toolkit.autoprune import Run, last_run, policy_of, run_once
from lib_toolkit.autoprune.lock import FolderLock
from lib_toolkit.errors import CancelledError, UsageError
from lib_toolkit.hosts import StandaloneHost
from lib_toolkit.hosts.host import Visitor
from lib_toolkit.jobs import Jobs
from lib_toolkit.progress import Progress
from lib_toolkit.ui import autoprune_view
from lib_toolkit.ui.actions import Actions
from lib_toolkit.ui.pruner import Pruner
from tests.autoprune import samples
from tests.autoprune.samples import assert_halved, save
from tests.ui.clicking import said

ACTS = '<img src=x onerror="window.acted=1">'


class Panel:
    """Two browser tabs' view of one host."""

    def __init__(self, models, **settings):
        (models / ".model-toolkit.json").write_text(json.dumps(settings))
        self.host, self.jobs = StandaloneHost(models), Jobs()
        self.pruner = Pruner(self.host, self.jobs)
        self.actions = Actions(self.host, self.jobs, pruner=self.pruner)
        self.panel = self.actions.autopruning
        self.drop = models / "Autoprune"

    def ended(self, answer):
        """Poll as the page does, until its run has ended; all answers together."""
        key, updates = answer
        merged = dict(updates)
        deadline = time.monotonic() + 60
        while "data-model-toolkit-step" in merged["autoprune_progress"]["value"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            key, updates = self.actions.poll(key)
            merged |= updates
        return key, merged


@pytest.fixture
def make(tmp_path):
    made = []

    def panel(**settings):
        made.append(Panel(tmp_path, **settings))
        return made[-1]

    yield panel
    for one in made:
        one.jobs.close()


def test_a_run_that_cannot_begin_takes_nothing_of_the_last_one_away(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    panel.ended(panel.panel.run(None))
    before = panel.pruner.steps, panel.pruner.changed
    assert before[0] and before[1]
    gate = threading.Event()
    with pytest.raises(UsageError):
        while True:
            panel.jobs.start("waiting", lambda progress: gate.wait(60))
    with pytest.raises(UsageError):
        panel.pruner.begin()
    assert (panel.pruner.steps, panel.pruner.changed) == before
    gate.set()


def test_before_anything_was_done(make):
    _, updates = make().panel.look(None)
    told = said(updates, "autoprune_view")
    assert "Put downloads into" in told and "When you press Run now, each of them becomes a clean model" in told
    assert "Settings: .model-toolkit.json in the models folder" in told
    assert "Nothing lies in" in told and "There was none yet." in told
    assert updates["autoprune_run"] == updates["autoprune_preview"] == {"interactive": True}
    assert updates["autoprune_cancel"] == {"interactive": False}
    assert "data-model-toolkit-saved" not in updates["autoprune_view"]["value"]


def test_the_rules_are_those_of_the_settings(make):
    wanted = {"precision": "bf16", "vae_format": "safetensors", "sources": "keep", "keep_ema": True, "fix_clip": True}
    told = said(make(autoprune=True, **wanted).panel.look(None)[1], "autoprune_view")
    for words in (
        *("At each start, or when", "weights become BF16", "EMA weights are kept", "VAEs become .safetensors"),
        *("sources stay where they are", "position ids are mended"),
    ):
        assert words in told


def test_a_run_from_begin_to_end(make):
    panel = make()
    arrays = samples.lora()
    save(panel.drop / "sub" / "big.safetensors", arrays)
    (panel.drop / "sub" / "big.preview.png").write_text("x")
    (panel.drop / "page.ckpt").write_text("<html>")
    (panel.drop / "comes.ckpt.part").write_text("")
    waiting = said(panel.panel.look(None)[1], "autoprune_view")
    assert "sub/big.safetensors" in waiting and "The next run deals with it." in waiting
    assert "comes.ckpt.part" in waiting and "a download that has not ended" in waiting
    key, updates = panel.panel.run(None)
    assert updates["autoprune_run"] == updates["autoprune_preview"] == {"interactive": False}
    assert updates["autoprune_cancel"] == {"interactive": True}
    assert 'data-model-toolkit-every="1000"' in updates["autoprune_progress"]["value"]
    _, updates = panel.ended((key, updates))
    told = said(updates, "autoprune_view")
    step = last_run(policy_of(panel.host)).steps[-1]
    assert step.file == "sub/big.safetensors"
    for words in (
        "1 waiting, 1 moved to Failed, 1 pruned",
        f"{autoprune_view.human_bytes(step.size)} → {autoprune_view.human_bytes(step.target_size)}",
        f"({autoprune_view.human_bytes(step.size - step.target_size)} saved), now Lora/sub/big.safetensors.",
        "Changed: 9 × F32 → F16",
        "Along with it: big.preview.png",
        f"The source is now Autoprune/Done/sub/big.safetensors SHA256 of the source: {step.hashes['sha256']}",
        "is a web page",
        "It lies at Autoprune/Failed/page.ckpt",
    ):
        assert words in told, words
    assert 'data-model-toolkit-saved="autoprune:' in updates["autoprune_view"]["value"]
    assert "Lora/sub/big.safetensors" in str(updates["source"]["choices"])
    assert_halved(panel.drop.parent / "Lora" / "sub" / "big.safetensors", arrays)
    later = panel.actions.refresh(None)[1]
    assert 'data-model-toolkit-saved="autoprune:' in later["autoprune_view"]["value"], "for a page that came late"
    assert "Lora/sub/big.safetensors" in said(later, "autoprune_view")


def test_other_work_goes_on_and_every_page_sees_the_run(make):
    panel = make()
    for seed in range(40):
        save(panel.drop / f"{seed}.safetensors", samples.lora(seed, modules=1))
    key, updates = panel.panel.run(None)
    other, seen = panel.actions.refresh(None)
    assert "data-model-toolkit-step" in seen["autoprune_progress"]["value"]
    again, _ = panel.panel.run(other)
    assert again == other
    assert panel.actions.refresh(None)[1]["source"]["choices"]
    _, first = panel.ended((key, updates))
    _, second = panel.ended((other, seen))
    assert "40 pruned" in said(first, "autoprune_view") and "40 pruned" in said(second, "autoprune_view")
    assert [step.outcome for step in last_run(policy_of(panel.host)).steps] == ["written"] * 40


def test_stop_keeps_what_is_done_and_says_so(make):
    panel = make()
    assert "No autoprune run goes on" in said(panel.panel.cancel(None)[1])
    for seed in range(60):
        save(panel.drop / f"{seed}.safetensors", samples.lora(seed, modules=1))
    key, updates = panel.panel.run(None)
    while not panel.pruner.steps:
        time.sleep(0.01)
    assert "so far" in said(panel.actions.poll(key)[1], "autoprune_view")
    _, updates = panel.ended(panel.panel.cancel(key))
    told = said(updates, "autoprune_view")
    assert "was cancelled." in told
    assert updates["autoprune_run"] == {"interactive": True}
    assert not list(panel.drop.parent.rglob(".model-toolkit-*"))
    done = len(list((panel.drop / "Done").glob("*")))
    assert 0 < done < 60
    assert f"What is waiting {60 - done} file" in told


def test_a_run_without_steps_is_told_truly(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    policy = policy_of(panel.host)
    asked = iter([False] * 3)
    with pytest.raises(CancelledError):
        run_once(policy, Progress(cancelled=lambda: next(asked, True)), pause=0.0)
    told = said(panel.panel.look(None)[1], "autoprune_view")
    assert "1 file, " in told and "was cancelled. It ended before a file was dealt with." in told
    assert "Nothing lies" not in told
    for state, words in (
        ("running", "before this page. No file is done yet."),
        ("stopped", "had to stop. It ended before a file was dealt with."),
        ("interrupted", "takes the missing steps. It ended before a file was dealt with."),
    ):
        html = autoprune_view.run_html(Run("x", state, "2024-05-06T07:08:09+00:00"), policy)
        assert words in said({"autoprune_view": {"value": html}}, "autoprune_view")


def test_kept_sources_are_shown(make):
    panel = make(sources="keep")
    save(panel.drop / "a.safetensors", samples.lora())
    panel.ended(panel.panel.run(None))
    told = said(panel.panel.look(None)[1], "autoprune_view")
    assert "No file waits." in told and "It was dealt with before, and is left here" in told
    _, updates = panel.ended(panel.panel.run(None))
    assert "1 dealt with before and kept in place" in said(updates, "autoprune_view")


def test_the_lists_of_what_was_filed_are_refreshed(make, monkeypatch):
    panel, refreshed = make(), []
    monkeypatch.setattr(panel.host, "refresh", lambda kind: refreshed.append(kind) or f"See {kind}.")
    save(panel.drop / "a.safetensors", samples.lora())
    save(panel.drop / "b.safetensors", samples.embedding())
    save(panel.drop / "c.safetensors", samples.upscaler())
    save(panel.drop / "d.safetensors", samples.hypernetwork(dtype="<f2"))
    save(panel.drop / "e.safetensors", samples.adapter())
    (panel.drop / "page.ckpt").write_text("<html>")
    _, updates = panel.ended(panel.panel.run(None))
    assert refreshed == ["controlnet", "embedding", "hypernetwork", "lora", "upscaler"]
    assert "See embedding." in said(updates, "autoprune_view")
    assert "See embedding." in said(panel.panel.look(None)[1], "autoprune_view")
    panel.ended(panel.panel.run(None))
    assert len(refreshed) == 5
    assert "See embedding." not in said(panel.panel.look(None)[1], "autoprune_view")


def test_a_run_of_another_program_is_told(make):
    panel = make()
    save(panel.drop / "a.safetensors", samples.lora())
    with FolderLock(panel.drop):
        _, updates = panel.ended(panel.panel.run(None))
        assert "Another run works on Autoprune already" in said(updates, "autoprune_view")
        assert "model-toolkit-status model-toolkit-error" in updates["autoprune_view"]["value"], "for the eye too"
    assert (panel.drop / "a.safetensors").is_file()


@pytest.mark.parametrize("how", ["run", "cancel"])
def test_who_may_not_write_may_look_only(make, how):
    panel = make(may_write=False)
    save(panel.drop / "a.safetensors", samples.lora())
    updates = getattr(panel.panel, how)(None, Visitor("10.0.0.7", "example.org", False))[1]
    assert "Saving is switched off here" in said(updates)
    assert panel.pruner.running is None
    assert "a.safetensors" in said(panel.panel.look(None)[1], "autoprune_view")


def test_deleting_sources_asks_first(make):
    panel = make(sources="delete")
    source = save(panel.drop / "a.safetensors", samples.lora())
    key, updates = panel.panel.run(None)
    assert "will be deleted once their results are verified" in said(updates)
    assert panel.pruner.running is None and source.is_file()
    key, begun = panel.panel.run(key)
    assert "works on what lies in its folder" in said(begun), "the question is answered"
    _, updates = panel.ended((key, begun))
    assert "1 pruned" in said(updates, "autoprune_view")
    assert not source.exists() and not (panel.drop / "Done").exists()


def test_names_are_only_text(make):
    panel = make()
    name = ACTS.replace("/", "")
    save(panel.drop / f"{name}.safetensors", samples.lora())
    (panel.drop / f"{name}.ckpt").write_text("<html>")
    _, before = panel.panel.look(None)
    _, after = panel.ended(panel.panel.run(None))
    for updates in (before, after):
        assert "<img" not in updates["autoprune_view"]["value"]
        assert "onerror" in updates["autoprune_view"]["value"]


def test_a_long_record_is_cut_and_says_so(make):
    policy = policy_of(make().host)
    steps = [samples_step(number) for number in range(230)]
    shown = autoprune_view.steps_html(steps, policy)
    assert shown.count("<li>") == 200
    assert "30 files more in Autoprune/journal.jsonl." in shown
    assert shown.index("f229") < shown.index("f228"), "the last one first"


def samples_step(number):
    from lib_toolkit.autoprune import Step

    return Step(f"f{number}", "left", reason="It is a link.")


def test_folders_that_make_no_sense_are_a_sentence_and_the_tab_works_on(make, monkeypatch):
    panel = make()
    usual = panel.host.output_folder
    monkeypatch.setattr(panel.host, "output_folder", lambda kind: panel.drop / "x" if kind == "vae" else usual(kind))
    _, updates = panel.actions.refresh(None)
    assert "lies in the drop folder; choose another one" in said(updates, "autoprune_view")
    assert updates["source"]["choices"]
    assert "lies in the drop folder" in said(panel.panel.run(None)[1])


class TestAtTheStart:
    def test_the_setting_decides(self, make, capsys):
        panel = make(autoprune=False)
        save(panel.drop / "a.safetensors", samples.lora())
        panel.pruner.started()
        assert panel.pruner.running is None
        panel = make(autoprune=True)
        panel.pruner.started()
        panel.jobs.wait(panel.pruner.running.id, 60)
        assert (panel.drop / "Done" / "a.safetensors").is_file()
        assert capsys.readouterr().out.startswith("Model Toolkit: autopruning has ended. Files: 1 pruned;")

    def test_nothing_to_do_says_nothing(self, make, capsys):
        panel = make(autoprune=True)
        panel.pruner.started()
        panel.jobs.wait(panel.pruner.running.id, 60)
        assert capsys.readouterr().out == ""

    def test_it_never_raises(self, make, monkeypatch, capsys):
        panel = make(autoprune=True)
        monkeypatch.setattr(panel.host, "output_folder", lambda kind: panel.drop)
        panel.pruner.started()
        assert "Model Toolkit: autopruning cannot begin:" in capsys.readouterr().out

    @pytest.mark.parametrize("error", [RuntimeError("unheard of"), OSError(5, "Input/output error")])
    def test_not_even_what_nobody_foresaw(self, make, monkeypatch, capsys, error):
        panel = make(autoprune=True)

        def raises(kind):
            raise error

        monkeypatch.setattr(panel.host, "output_folder", raises)
        panel.pruner.started()
        assert "Model Toolkit: autopruning cannot begin:" in capsys.readouterr().out

    @pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
    def test_folders_that_are_links_in_a_circle_are_told_of(self, make):
        panel = make(autoprune=True)
        lora = panel.drop.parent / "Lora"
        lora.symlink_to(lora)
        save(panel.drop / "a.safetensors", samples.lora())
        panel.pruner.started()
        panel.jobs.wait(panel.pruner.running.id, 60)
        assert "is a link that leads to no folder" in said(panel.panel.look(None)[1], "autoprune_view")
        lora.unlink()
        panel.drop.rename(lora)
        panel.drop.symlink_to(panel.drop)
        told = said(panel.panel.look(None)[1], "autoprune_view")
        assert "is a link that leads to no folder" in told
        _, updates = panel.ended(panel.panel.preview(None))
        assert "is a link that leads to no folder" in said(updates, "autoprune_view")

    def test_the_end_of_the_host_ends_it(self, make):
        panel = make(autoprune=True)
        for seed in range(60):
            save(panel.drop / f"{seed}.safetensors", samples.lora(seed, modules=1))
        panel.pruner.started()
        while not panel.pruner.steps:
            time.sleep(0.01)
        panel.pruner.ended()
        assert panel.pruner.running is None
        assert last_run(policy_of(panel.host)).state == "cancelled"
        assert not list(panel.drop.parent.rglob(".model-toolkit-*"))
        panel.pruner.ended()  # once more does no harm
