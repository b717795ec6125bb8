"""The Advanced panel without a browser: edits in memory, exports, new models, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lib_toolkit.hosts import StandaloneHost
from lib_toolkit.hosts.host import Visitor
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui.actions import Actions
from lib_toolkit.ui.editing import Pointed
from lib_toolkit.ui.workspace import Controls
from tests.ui.clicking import files, loaded, said, settled

WRONG = "Stable-diffusion/sd-demo-wrong-vae.safetensors"
BLOATED = "Stable-diffusion/sd-demo-bloated.ckpt"
XL = "Stable-diffusion/xl/sdxl-demo-vpred.safetensors"
VAE = "VAE/demo.vae.safetensors"
NEW = "NEW SD-v1-Demo"
VAE_PREFIX, UNET_PREFIX = "first_stage_model.", "model.diffusion_model."


@pytest.fixture
def actions(models, demo):
    shutil.copyfile(demo / WRONG, models / WRONG)
    jobs = Jobs()
    yield Actions(StandaloneHost(models), jobs)
    jobs.close()


def pointed(cls, source="", component="auto", own="auto", name="", file_format="safetensors"):
    return Pointed("SD-v1-Demo", cls, own, source, component, name, file_format)


def bring_in(actions, key, cls, source, component="auto", controls=Controls()):  # noqa: B008
    return settled(actions, actions.editing.bring_in(key, pointed(cls, source, component), controls))[1]


def save(actions, key, name, **wishes):
    return settled(actions, actions.save(key, Controls(name, **wishes)))[1]


def export(actions, key, cls, name, **more):
    controls = more.pop("controls", Controls())
    return settled(actions, actions.editing.export(key, pointed(cls, name=name, **more), controls))[1]


def digests(path, prefix=""):
    return {
        key: (array.dtype.str, hashlib.sha256(array.tobytes()).hexdigest())
        for key, array in load_file(path).items()
        if key.startswith(prefix)
    }


def test_a_replaced_vae_is_that_of_the_file_and_nothing_else_changes(actions, models):
    key, before = loaded(actions, WRONG)
    updates = bring_in(actions, key, "VAE-v1-Demo", VAE)
    assert "Imported VAE-v1-Demo of demo.vae.safetensors: the only VAE-v1-Demo in it" in said(updates)
    assert "Changed in memory (1 edit), not saved yet" in said(updates, "identity")
    assert "data-model-toolkit-unsaved" in updates["unsaved"]["value"]
    assert "VAE-v1-Demo from VAE/demo.vae.safetensors" in said(updates, "edits")
    assert updates["undo"]["interactive"] is True
    size = int(updates["saving"]["value"].split('id="model_toolkit_size">')[1].split(" ")[0].replace(",", ""))
    updates = save(actions, key, "mended")
    target = models / "Stable-diffusion/mended.safetensors"
    assert target.stat().st_size == size
    assert 'data-model-toolkit-saved="checkpoint:' in updates["status"]["value"]
    assert updates["unsaved"]["value"] == ""
    source, result, vae = load_file(models / WRONG), load_file(target), load_file(models / VAE)
    assert source.keys() == result.keys()
    for name, array in result.items():
        expected = vae[name[len(VAE_PREFIX) :]].astype("<f2") if name.startswith(VAE_PREFIX) else source[name]
        assert array.tobytes() == expected.tobytes(), name
    assert before["identity"]["value"] != updates["identity"]["value"]


def test_two_edits_one_file_and_undo(actions, models):
    key, _ = loaded(actions, WRONG)
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    updates = bring_in(actions, key, "UNET-v1-Demo", BLOATED, "UNET-v1-Demo-EMA")
    assert "2 edits" in said(updates, "unsaved")
    assert "as asked for" in said(updates)
    save(actions, key, "both")
    _, updates = settled(actions, actions.editing.undo(key, Controls()))
    assert "Undone: UNET-v1-Demo from Stable-diffusion/sd-demo-bloated.ckpt" in said(updates)
    assert "1 edit" in said(updates, "unsaved"), "what is in memory now is in no file"
    save(actions, key, "one")
    folder = models / "Stable-diffusion"
    assert digests(folder / "both.safetensors", VAE_PREFIX) == digests(folder / "one.safetensors", VAE_PREFIX)
    assert digests(folder / "one.safetensors", UNET_PREFIX) == digests(models / WRONG, UNET_PREFIX)
    assert digests(folder / "both.safetensors", UNET_PREFIX) != digests(models / WRONG, UNET_PREFIX)
    _, updates = settled(actions, actions.editing.undo(key, Controls()))
    assert updates["unsaved"]["value"] == ""
    assert "nothing to undo" in said(settled(actions, actions.editing.undo(key, Controls()))[1])


def test_a_new_model_of_exported_parts_has_the_components_of_an_import(actions, models):
    """Both ways to one model: replace the VAE, or export, begin anew, and import."""
    key, _ = loaded(actions, WRONG)
    for cls, name in (("UNET-v1-Demo", "part-u"), ("CLIP-v1-Demo", "part-c")):
        assert f"Exported Components/{name}.safetensors" in said(export(actions, key, cls, name))
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    save(actions, key, "easy")
    key, updates = loaded(actions, NEW)
    assert updates["architecture"] == {"choices": ["SD-v1-Demo"], "value": "SD-v1-Demo"}
    assert "still lacks UNET-v1-Demo, VAE-v1-Demo, CLIP-v1-Demo" in said(updates, "identity")
    bring_in(actions, key, "UNET-v1-Demo", "Components/part-u.safetensors")
    updates = bring_in(actions, key, "VAE-v1-Demo", VAE)
    assert "It still lacks CLIP-v1-Demo" in said(updates, "identity")
    updates = bring_in(actions, key, "CLIP-v1-Demo", "Components/part-c.safetensors")
    assert "intact" in said(updates, "identity")
    assert updates["name"]["value"] == "new-SD-v1-Demo"
    assert "a new model" in said(save(actions, key, "hard"))
    easy, hard = (digests(models / f"Stable-diffusion/{name}.safetensors") for name in ("easy", "hard"))
    assert hard.items() <= easy.items()
    assert len(easy) - len(hard) == 12, "a new model has no noise schedule"


def test_an_incomplete_new_model_is_saved_at_the_second_click_only(actions, models):
    key, _ = loaded(actions, NEW)
    assert "is empty: import its parts" in said(save(actions, key, "x"))
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    before = files(models)
    assert "still lacks UNET-v1-Demo, CLIP-v1-Demo" in said(save(actions, key, "x"))
    assert "still lacks" in said(save(actions, key, "y")), "another name is another question"
    assert files(models) == before
    assert "Saved" in said(save(actions, key, "y"))


@pytest.mark.parametrize(("precision", "dtype"), [("auto", "<f2"), ("fp32", "<f4"), ("keep", "<f4"), ("fp16", "<f2")])
def test_a_new_model_takes_values_as_they_are_to_the_wished_precision(actions, models, precision, dtype):
    key, _ = loaded(actions, NEW, Controls(precision=precision))
    bring_in(actions, key, "VAE-v1-Demo", VAE, controls=Controls(precision=precision))
    save(actions, key, "x", precision=precision)
    save(actions, key, "x", precision=precision)
    result, vae = load_file(models / "Stable-diffusion/x.safetensors"), load_file(models / VAE)
    for name, array in vae.items():
        assert result[VAE_PREFIX + name].tobytes() == array.astype(dtype).tobytes()


def test_an_export_of_the_edited_model_has_what_was_put_in(actions, models):
    key, _ = loaded(actions, WRONG)
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    updates = export(actions, key, "VAE-v1-Demo", "mine.vae", controls=Controls(precision="keep"))
    assert "VAE/mine.vae.safetensors" in said(updates).replace(os.sep, "/")
    result = load_file(models / "VAE/mine.vae.safetensors")
    assert {name: array.astype("<f2").tobytes() for name, array in load_file(models / VAE).items()} == {
        name: array.tobytes() for name, array in result.items()
    }


def test_an_export_as_pt_opens_with_torch(actions, models):
    torch = pytest.importorskip("torch")
    key, _ = loaded(actions, WRONG)
    export(actions, key, "CLIP-v1-Demo", "text", file_format="pt")
    state = torch.load(models / "Components/text.pt", weights_only=True)
    state = state.get("state_dict", state)
    assert "text_model.final_layer_norm.weight" in state


def test_exported_names_are_proposed_checked_and_never_overwritten(actions, models):
    key, updates = loaded(actions, BLOATED)
    assert updates["export_name"]["value"] == "sd-demo-bloated.unet"
    _, updates = actions.editing.point(key, pointed("VAE-v1-Demo"))
    for nonsense in ("nonsense", None, 7):
        shown = actions.editing.point(key, pointed(nonsense))[1]
        assert shown["class"]["value"] == "VAE-v1-Demo", "what was chosen stays"
    assert updates["export_name"]["value"] == "sd-demo-bloated.vae"
    assert updates["import_component"]["choices"] == ["auto", "VAE-v1-Demo"]
    _, updates = actions.editing.point(key, pointed("UNET-v1-Demo", own="UNET-v1-Demo-EMA"))
    assert updates["component"]["choices"] == ["auto", "UNET-v1-Demo", "UNET-v1-Demo-EMA"]
    assert updates["export_name"]["value"] == "sd-demo-bloated-ema.unet"
    told_again = actions.editing.point(key, pointed("UNET-v1-Demo", own="UNET-v1-Demo-EMA"))
    assert told_again == (key, {}), "a name that was typed meanwhile stays"
    before = files(models)
    for name in ("../x", "", "con", "a/b", "x.ckpt", "y" * 300, "demo.vae"):
        updates = export(actions, key, "VAE-v1-Demo", name)
        assert 'role="alert"' in updates["status"]["value"], name
    assert files(models) == before


def test_what_does_not_fit_is_refused_in_words_and_changes_nothing(actions):
    key, _ = loaded(actions, WRONG)
    for cls, source, words in (
        ("UNET-v1-Demo", XL, "its UNET-XL-Demo has"),
        ("UNET-v1-Demo", VAE, "has no UNET-v1-Demo; what it has is VAE-v1-Demo"),
        ("VAE-v1-Demo", "", "No file to import from is chosen"),
        ("VAE-v1-Demo", "VAE/gone.safetensors", "is not among the models"),
        ("VAE-v1-Demo", "../secret.safetensors", "is not among the models"),
        ("VAE-v1-Demo", NEW, "is not among the models"),
    ):
        updates = bring_in(actions, key, cls, source)
        assert words in said(updates), said(updates)
        assert 'role="alert"' in updates["status"]["value"]
    assert "nothing to undo" in said(actions.editing.undo(key, Controls())[1])
    assert "Imported" in said(bring_in(actions, key, "VAE-v1-Demo", VAE))


@pytest.mark.parametrize("value", ["<script>", "", None, 7, ["auto"], {"a": 1}, "UNET-v1-Demo", "x" * 5000])
def test_forged_choices_are_refused(actions, models, value):
    key, _ = loaded(actions, WRONG)
    before = files(models)
    fields = ("architecture", "cls", "component", "import_component", "export_format", "import_source", "export_name")
    for field in fields:
        forged = {"architecture": "SD-v1-Demo", "cls": "VAE-v1-Demo", "import_source": VAE, "export_name": "n"}
        forged |= {field: value}
        if value == "UNET-v1-Demo" and field in {"architecture", "cls", "export_name"}:
            continue  # that can be chosen
        aim = Pointed(**forged)
        actions.editing.point(key, aim)
        if field not in {"export_format", "export_name"}:
            updates = settled(actions, actions.editing.bring_in(key, aim, Controls()))[1]
            assert 'role="alert"' in updates["status"]["value"], field
        if field not in {"import_source", "import_component"} and not (field == "export_name" and value == "x" * 5000):
            updates = settled(actions, actions.editing.export(key, aim, Controls()))[1]
            assert 'role="alert"' in updates["status"]["value"], field
    assert files(models) == before


def test_everything_before_a_load_is_a_sentence(actions):
    key, _ = actions.refresh(None)
    for answer in (
        actions.editing.bring_in(key, pointed("VAE-v1-Demo", VAE), Controls()),
        actions.editing.export(key, pointed("VAE-v1-Demo", name="x"), Controls()),
        actions.editing.undo(key, Controls()),
        actions.editing.report(key),
    ):
        assert "press Load first" in said(answer[1])
    assert actions.editing.point(key, pointed("VAE-v1-Demo"))[1] == {}


@pytest.mark.parametrize("which", [WRONG, VAE])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_every_file_behind_an_edited_model_is_checked(actions, models, which, how):
    key, _ = loaded(actions, WRONG)
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    before = files(models)
    if how == "changed":
        os.utime(models / which, ns=(1, 1))
        words = f"{which.rpartition('/')[2]} was changed since it was loaded"
    else:
        (models / which).rename(models / which.replace(".safetensors", ".bak"))
        words = f"{which.rpartition('/')[2]} is not there any more"
    for answer in (
        actions.save(key, Controls("x")),
        actions.change(key, Controls("x", precision="keep")),
        actions.editing.export(key, pointed("UNET-v1-Demo", name="x"), Controls()),
        actions.editing.bring_in(key, pointed("UNET-v1-Demo", BLOATED), Controls()),
    ):
        assert words in said(settled(actions, answer)[1])
    assert len(files(models)) == len(before)


def test_unsaved_edits_are_given_up_at_the_second_click_only(actions):
    key, _ = loaded(actions, WRONG)
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    assert "press Clear once more" in said(actions.clear(key)[1])
    assert "press Load once more" in said(actions.load(key, VAE, Controls())[1])
    assert "press Load once more" in said(actions.load(key, WRONG, Controls())[1]), "another model, another question"
    assert "Loaded sd-demo-wrong-vae" in said(settled(actions, actions.load(key, WRONG, Controls()))[1])
    assert actions.clear(key)[1]["status"]["value"].count("Cleared") == 1


def test_visitors_whom_the_host_refuses_write_nothing(actions, models, monkeypatch):
    asked = []

    def refuse(self, visitor):
        asked.append(visitor)
        return "Not from there."

    monkeypatch.setattr(StandaloneHost, "write_refusal", refuse)
    key, _ = loaded(actions, WRONG)
    before = files(models)
    stranger = Visitor("203.0.113.9", "example.org", True)
    for answer in (
        actions.save(key, Controls("x"), stranger),
        actions.editing.export(key, pointed("VAE-v1-Demo", name="x"), Controls(), stranger),
    ):
        assert said(answer[1]) == "Not from there."
    assert asked == [stranger, stranger]
    assert files(models) == before


def test_the_report_is_of_the_file_on_disk(actions, models):
    key, _ = loaded(actions, WRONG)
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    _, updates = settled(actions, actions.editing.report(key))
    assert "without what was changed in memory" in said(updates)
    assert updates["report_html"]["value"].endswith("sd-demo-wrong-vae.report.html")
    assert "sd-demo-wrong-vae.safetensors" in said(updates, "report_view")
    _, updates = settled(actions, actions.load(actions.clear(key)[0], NEW, Controls()))
    _, updates = settled(actions, actions.load(key, NEW, Controls()))
    assert "is not a file yet" in said(actions.editing.report(key)[1])


def test_the_metric_comes_after_the_first_answer_and_follows_the_edits(actions):
    """Figures by an independent sum over the values as the definition has it."""
    key, updates = loaded(actions, WRONG)
    assert f"Metric ({figures(actions, WRONG)})" in said(updates, "identity")
    unet, vae, clip = figures(actions, WRONG).split("/")
    updates = bring_in(actions, key, "VAE-v1-Demo", VAE)
    new = figures(actions, VAE, "")
    assert new != vae
    assert f"Metric ({unet}/{new}/{clip})" in said(updates, "identity")


def figures(actions, name, prefix=VAE_PREFIX):
    tensors = load_file(actions.host.find(name).path)

    def summed(start, *parts, without="\0"):
        chosen = (array for key, array in tensors.items() if key.startswith(start) and without not in key)
        named = (key for key in tensors if key.startswith(start) and without not in key)
        values = [
            array.astype("<f2").astype("<f8")
            for key, array in zip(named, chosen, strict=True)
            if not parts or any(part in key for part in parts)
        ]
        return sum(float(((1 / (1 + np.exp(-v))).astype("<f4").astype("<f8") - 0.5).sum()) for v in values)

    def figure(total, base, factor):
        number = int(abs(total / base - 1) * factor)
        while number >= 10_000:
            number -= 5_000
        return f"{number:04d}"

    vae = figure(summed(prefix, "encoder.", "decoder."), 17870.7051, 10_000)
    if not prefix:
        return vae
    unet = figure(summed(UNET_PREFIX), -6131.54, 10_000)
    clip = figure(summed("cond_stage_model.", "mlp.", without=".23."), -2097.8596, 1_000_000)
    return f"{unet}/{vae}/{clip}"


def test_a_part_alone_under_its_prefix_is_told_to_be_of_use(actions, models):
    kept = {key: array for key, array in load_file(models / WRONG).items() if key.startswith(VAE_PREFIX)}
    save_file(kept, models / "VAE/lone.safetensors")
    key, updates = loaded(actions, "VAE/lone.safetensors")
    assert "VAE-v1-Demo is whole and can be exported to a file of its own" in said(updates, "identity")
    aim = Pointed("VAE-v1-Demo-BROKEN", "VAE-v1-Demo", "auto", "", "auto", "freed")
    settled(actions, actions.editing.export(key, aim, Controls()))
    freed = load_file(models / "VAE/freed.safetensors")
    assert freed.keys() == {key[len(VAE_PREFIX) :] for key in kept}
    assert "is an VAE" not in said(updates, "identity")


def test_sessions_keep_data_and_no_plan(actions):
    key, _ = loaded(actions, WRONG)
    bring_in(actions, key, "VAE-v1-Demo", VAE)
    _, session = actions.desk.sessions.session(key)
    assert session.loaded is not None
    assert not any("tensors" in vars(value) for value in vars(session).values() if hasattr(value, "__dict__"))
