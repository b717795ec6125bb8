"""What a prune says of tensors that it does not know: how many there are, and the true reason why they stay."""

from __future__ import annotations

import numpy as np
import pytest

from lib_toolkit.edits.prune import prune
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.plan import plan_of
from tests.autoprune import samples
from tests.autoprune.samples import save

ONLY = "left out only when asked for (drop unknown)."


def halves() -> dict[str, np.ndarray]:
    arrays = samples.checkpoint()
    del arrays[next(key for key in arrays if key.startswith("first_stage_model.decoder"))]
    return arrays


@pytest.mark.parametrize(
    ("arrays", "strangers", "told"),
    [
        (
            samples.lora(),
            [np.ones((), "|u1")],
            f"1 unknown tensor (1 byte) was kept: what a LoRA may hold is an open set, and it may matter. It is {ONLY}",
        ),
        (
            samples.lora(),
            [np.ones(3, "<f4")] * 2,
            "2 unknown tensors (24 bytes) were kept: what a LoRA may hold is an open set, and they may matter. "
            f"They are {ONLY}",
        ),
        (
            samples.checkpoint(),
            [np.ones((40, 1 << 18), "<f4")],
            f"1 unknown tensor (41,943,040 bytes) was kept: it is a large part of the file. It is {ONLY}",
        ),
        (
            halves(),
            [np.ones(2, "<f4")] * 3,
            f"3 unknown tensors (24 bytes) were kept: the architecture is not intact. They are {ONLY}",
        ),
    ],
    ids=["one of a LoRA", "two of a LoRA", "a large one", "of a broken model"],
)
def test_why_unknown_tensors_are_kept(tmp_path, arrays, strangers, told):
    extra = {f"extra{number}": array for number, array in enumerate(strangers)}
    with open_model(save(tmp_path / "a.safetensors", arrays | extra)) as model:
        plan = prune(plan_of(model), identify(model))
    assert plan.warnings == (told,)
    assert extra.keys() <= plan.tensors.keys()
