"""The Basic panel's HTML: sentences, figures that add up, and text from files that can do nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lib_toolkit.architectures.registry import architecture
from lib_toolkit.dtypes import DType
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.edits.repair import PositionIds
from lib_toolkit.identify import identify
from lib_toolkit.model import Model, Origin
from lib_toolkit.reports import html
from lib_toolkit.reports.shares import bar, shares_of
from lib_toolkit.reports.summary import (
    components_html,
    difference,
    facts_of,
    findings_html,
    identity_html,
    may_offer_drop,
    preview_of,
    saved_by_half,
    saving_html,
    verdict,
)
from lib_toolkit.tensors import Filled, nbytes

DEMO = architecture("sd-v1-demo")
VAE = "first_stage_model."
HOSTILE = '<img src=x onerror="alert(1)">\x1b[2J\u202egnp.exe'


def model_of(table, dtype=DType.F32, name="some.safetensors", extra=None, **fields):
    """A model without values: identification and plans need none."""
    tensors = {
        key: Filled(b"", DType.I64 if key.endswith("position_ids") else dtype, shape) for key, shape in table.items()
    }
    tensors |= extra or {}
    size = fields.pop("size", sum(nbytes(tensor) for tensor in tensors.values()) + 1000)
    return Model(tensors, Origin(Path(name), "safetensors", size), **fields)


def shown(model, wishes=Wishes(), file_format="safetensors"):  # noqa: B008
    found = identify(model)
    keep = plan_prune(model, found, Wishes("keep", wishes.keep_ema, wishes.fix_clip, wishes.drop_unknown))
    plan = plan_prune(model, found, wishes)
    return facts_of(model), found, preview_of(model, found, plan, file_format, saved_by_half(keep, found)), plan


class Elements(HTMLParser):
    """The elements and attributes that a browser would make."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.words = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.words += data


def words(text):
    page = Elements(text)
    assert page.open == []
    return page.words


def test_text_is_escaped_and_marked_html_is_not():
    made = html.tag("p", "<b>", html.tag("i", "&"), class_='a"b', data_model="x")
    assert made == '<p class="a&quot;b" data-model="x">&lt;b&gt;<i>&amp;</i></p>'
    assert html.tag("p", title=None) == "<p></p>"
    assert html.text("a\x00b\u202ec\n") == "a\\x00b\\u202ec\\x0a"
    assert len(html.text("x" * 5000)) == 2001


def test_an_intact_checkpoint_in_sentences():
    facts, found, *_ = shown(model_of(DEMO.table(ema=True)))
    first, *others = verdict(facts, found)
    assert first == "some.safetensors is an SD-v1-Demo (checkpoint), intact: nothing that belongs to it is missing."
    told = " ".join(others)
    assert "UNET-v1-Demo" in told
    assert f"{facts.size:,} bytes" in told
    assert f"{len(DEMO.table(ema=True)):,} tensors" in told


def test_a_broken_checkpoint_says_what_is_missing():
    table = {key: shape for key, shape in DEMO.table().items() if not key.startswith(VAE)}
    facts, found, preview, _ = shown(model_of(table))
    first = verdict(facts, found)[0]
    assert "not a whole model" in first
    assert "VAE-v1-Demo" in first
    assert "intact" not in first
    assert "no VAE inside" in words(identity_html(facts, found, preview))


def test_a_bare_component_that_is_incomplete_is_not_said_to_be_without_itself():
    table = {key.removeprefix(VAE): shape for key, shape in DEMO.table().items() if key.startswith(VAE)}
    gone = next(key for key in table if key.endswith("norm1.weight"))
    del table[gone]
    facts, found, *_ = shown(model_of(table))
    first = verdict(facts, found)[0]
    assert "not a whole model" in first and "without" not in first and gone in first


def test_a_damaged_component_is_told_by_its_keys():
    table = DEMO.table()
    gone = next(key for key in table if key.startswith(VAE) and key.endswith("norm1.weight"))
    del table[gone]
    _, found, *_ = shown(model_of(table))
    told = words(components_html(found))
    assert "1 tensor of VAE-v1-Demo is missing" in told
    assert gone in told


def test_an_unknown_file_is_called_unknown():
    facts, found, *_ = shown(model_of({"some.layer.weight": (10, 10), "other.bias": (10,)}))
    assert "is not a model that is known here" in verdict(facts, found)[0]


@pytest.mark.parametrize(
    "wishes", [Wishes(), Wishes("keep"), Wishes("bf16", keep_ema=True), Wishes("fp32", drop_unknown=True)]
)
def test_shares_add_up_to_the_files(wishes):
    extra = {f"strange.{n}": Filled(b"", DType.F16, (100,)) for n in range(5)}
    model = model_of(DEMO.table(ema=True), extra=extra)
    _, found, preview, plan = shown(model, wishes)
    assert sum(share.before for share in preview.shares) == model.origin.size
    assert sum(share.after for share in preview.shares) == preview.size == plan.predicted_size("safetensors")
    by_role = {share.role: share for share in preview.shares}
    prefixes = {"unet": "model.diffusion_model.", "vae": VAE, "text": "cond_stage_model.", "ema": "model_ema."}
    for role, prefix in prefixes.items():
        expected = [tensor for key, tensor in model.tensors.items() if key.startswith(prefix)]
        assert by_role[role].before == sum(nbytes(tensor) for tensor in expected)
        assert by_role[role].tensors == len(expected)
    assert by_role["unknown"].before == 5 * 200
    assert (by_role["ema"].after > 0) is wishes.keep_ema
    assert by_role["frame"].before == 1000
    assert identify(model) == found


def test_the_bar_draws_shares_in_proportion():
    model = model_of(DEMO.table(ema=True))
    _, found, preview, plan = shown(model)
    page = bar(preview.shares)
    rows = page.split("model-toolkit-bar-row")[1:]
    widths = [[float(width) for width in re.findall(r"width:([\d.]+)%", row)] for row in rows]
    assert [round(sum(row), 1) for row in widths] == [100.0, 100.0]
    unet = next(share for share in preview.shares if share.role == "unet")
    assert widths[0][0] == pytest.approx(100 * unet.before / model.origin.size, abs=0.01)
    assert widths[1][0] == pytest.approx(100 * unet.after / model.origin.size, abs=0.01)
    assert "left out" in words(page)
    larger = shares_of(model, found, plan_prune(model, found, Wishes("keep", keep_ema=True)), model.origin.size * 2)
    assert "width:50.000%" in bar(larger), "the scale is that of the larger file"
    assert plan.dropped


def test_findings_appear_only_where_there_is_something_to_decide():
    plain = model_of(DEMO.table(), DType.F16)
    facts, found, preview, _ = shown(plain)
    assert findings_html(facts, found, preview, (), False) == {}
    fat = model_of(DEMO.table(ema=True))
    facts, found, preview, _ = shown(fat)
    told = findings_html(facts, found, preview, (), False)
    assert set(told) == {"half", "keep_ema"}
    ema = [tensor for key, tensor in fat.tensors.items() if key.startswith("model_ema.")]
    assert f"{len(ema):,} tensors" in words(told["keep_ema"])


def test_half_precision_saves_what_it_says():
    model = model_of(DEMO.table(ema=True))
    for keep_ema in (False, True):
        _, found, preview, _ = shown(model, Wishes("keep", keep_ema))
        weights = [
            tensor
            for key, tensor in model.tensors.items()
            if tensor.dtype is DType.F32 and (keep_ema or not key.startswith("model_ema."))
        ]
        assert preview.half_saves == sum(nbytes(tensor) for tensor in weights) // 2
        assert found.intact


@pytest.mark.parametrize(("lost", "effect"), [((75,), "images change slightly"), ((), "images stay the same")])
def test_broken_position_ids_state_the_effect_of_the_fix(lost, effect):
    facts, found, preview, _ = shown(model_of(DEMO.table(), DType.F16))
    ids = PositionIds("cond_stage_model.x.position_ids", DType.F32, False, lost, (75.9975,))
    told = words(findings_html(facts, found, preview, (ids,), False)["fix_clip"])
    assert effect in told
    assert "kept exactly as it is" in told
    right = PositionIds("x.position_ids", DType.I64, True, (), ())
    assert "fix_clip" not in findings_html(facts, found, preview, (right,), False)


def test_leaving_out_most_of_a_file_is_not_offered():
    little = model_of(DEMO.table(), DType.F16, extra={"strange": Filled(b"", DType.F16, (10,))})
    facts, found, preview, _ = shown(little)
    assert may_offer_drop(facts, found)
    assert "drop_unknown" in findings_html(facts, found, preview, (), True)
    mostly = model_of({f"strange.{n}.weight": (100, 100) for n in range(20)})
    facts, found, *_ = shown(mostly)
    assert not may_offer_drop(facts, found)


def test_what_save_will_write_to_the_byte():
    model = model_of(DEMO.table(ema=True))
    _, _, preview, plan = shown(model)
    told = words(saving_html(preview, "some-pruned-fp16.safetensors", "/models/Stable-diffusion", "safetensors"))
    size = plan.predicted_size("safetensors")
    assert f"{size:,} bytes" in told
    assert f"{model.origin.size - size:,} bytes fewer than the source" in told
    assert "some-pruned-fp16.safetensors" in told
    assert "/models/Stable-diffusion" in told
    assert f"{len(plan.dropped):,} × EMA copy" in told
    assert "× F32 → F16" in told
    assert difference(10, 10) == "as large as the source"
    assert difference(10, 1010) == "1,000 bytes more than the source"


def test_warnings_do_not_advise_options_of_the_command_line():
    strange = {f"strange.{n}.weight": Filled(b"", DType.F16, (400, 400)) for n in range(40)}
    _, _, preview, plan = shown(model_of(DEMO.table(), DType.F16, extra=strange))
    assert any("unknown tensors" in warning for warning in preview.warnings)
    assert not any("--" in warning for warning in preview.warnings)
    assert plan.warnings


def test_hostile_text_shows_and_does_nothing():
    model = model_of(
        DEMO.table(ema=True),
        name=f"{HOSTILE}.ckpt",
        extra={f"strange.{HOSTILE}": Filled(b"", DType.F16, (900, 900))},
        container=HOSTILE,
        values={"epoch": HOSTILE},
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
    )
    facts, found, preview, _ = shown(model)
    ids = PositionIds(HOSTILE, DType.F32, False, (1,), ())
    pieces = [
        identity_html(facts, found, preview),
        components_html(found),
        *findings_html(facts, found, preview, (ids,), True).values(),
        saving_html(preview, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
    ]
    page = Elements("".join(pieces))
    assert page.open == []
    assert not {"img", "script"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.words.count("<img src=x onerror=") >= 8
    assert "\x1b" not in page.words
    assert "\u202e" not in page.words
    assert "\\x1b" in page.words
