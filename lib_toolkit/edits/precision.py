"""Change the precision of weights; everything that gives other tensors their meaning keeps its type."""

from __future__ import annotations

from dataclasses import replace

from lib_toolkit.casting import cast
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import UsageError
from lib_toolkit.identify import Identification
from lib_toolkit.plan import Changed, Plan
from lib_toolkit.tensors import Tensor

PRECISIONS: dict[str, dict[DType, DType]] = {
    "auto": {DType.F64: DType.F16, DType.F32: DType.F16},
    "fp16": {DType.F64: DType.F16, DType.F32: DType.F16, DType.BF16: DType.F16},
    "bf16": {DType.F64: DType.BF16, DType.F32: DType.BF16, DType.F16: DType.BF16},
    "fp32": {DType.F64: DType.F32, DType.F16: DType.F32, DType.BF16: DType.F32},
    "keep": {},
}
"""What becomes of each floating-point type. ``auto`` leaves 16-bit types as they are."""


def precision_table(precision: str) -> dict[DType, DType]:
    """What becomes of each floating-point type. Raises UsageError for an unknown precision."""
    if precision not in PRECISIONS:
        raise UsageError(f"{precision!r} is not a precision; choose {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def set_precision(plan: Plan, found: Identification, precision: str) -> Plan:
    """The plan with its weights at ``precision`` (a name in PRECISIONS).

    Schedule buffers, CLIP position ids, markers and scales keep their type, and so does every tensor of a model
    with quantised layers. Raises UsageError for an unknown precision.
    """
    table = precision_table(precision)
    if not table:
        return plan
    if found.quantised:
        note = f"The model has quantised layers ({found.quantised}): no tensor was cast, since its scales belong to it."
        return replace(plan, warnings=(*plan.warnings, note))
    fixed, words = _fixed_keys(found), {kind: f"{kind.name} → {target.name}" for kind, target in table.items()}
    tensors: dict[str, Tensor] = {}
    changed: list[Changed] = []
    for key, tensor in plan.tensors.items():
        target = table.get(tensor.dtype)
        if target is None or key in fixed or 0 in tensor.shape:
            tensors[key] = tensor
            continue
        tensors[key] = cast(tensor, target)
        changed.append(Changed(key, words[tensor.dtype]))
    operations = (*plan.operations, f"precision {precision}") if changed else plan.operations
    return replace(plan, tensors=tensors, changed=(*plan.changed, *changed), operations=operations)


def _fixed_keys(found: Identification) -> set[str]:
    position_ids = {found.renames.get(key, key) for key in found.position_ids}
    return {*found.buffers, *found.position_ids, *position_ids, *(left.key for left in found.leftovers.protected)}
