"""What a report says a prune would write is what a prune writes."""

from __future__ import annotations

import numpy as np

from lib_toolkit.analysis.report import analyse
from lib_toolkit.dtypes import DType
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.reports.report_pruned import pruned
from lib_toolkit.writing import WriteOptions, look_ahead
from tests.analysis.samples import demo, save

OUT = "model.diffusion_model.out.2."


def test_tensors_that_fp16_would_spoil_count_at_their_type(tmp_path):
    arrays = demo()
    arrays[f"{OUT}weight"][...] = 1e-9
    arrays[f"{OUT}weight"].flat[0] = 0.0
    arrays[f"{OUT}bias"][0] = 1e6
    with open_model(save(tmp_path / "m.safetensors", arrays)) as model:
        found = identify(model)
        report = analyse(model, found, names={})
        assert report.health[f"{OUT}weight"].below_fp16 == np.count_nonzero(arrays[f"{OUT}weight"])
        told = pruned(report)
        plan, _ = look_ahead(plan_prune(model, found, Wishes()), WriteOptions())
    assert told is not None
    assert told.size == plan.predicted_size("safetensors")
    assert {plan.tensors[f"{OUT}{name}"].dtype for name in ("weight", "bias")} == {DType.F32}
