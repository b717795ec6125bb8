"""Repairs of known faults: NovelAI's text-encoder names and position ids that merging has turned into fractions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_toolkit.dtypes import DType
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.plan import Changed, Plan
from lib_toolkit.tensors import Filled, Stored, Tensor, numel, read_all

_LARGEST = 4096


@dataclass(frozen=True)
class PositionIds:
    """The state of one position_ids tensor.

    ``lost`` are the positions that a loader misses: it truncates each value to a whole number, so 75.9975 stands
    for 75. ``fractions`` are the values that are not whole. ``right``: an int64 tensor with 0, 1, 2 …
    """

    key: str
    dtype: DType
    right: bool
    lost: tuple[int, ...]
    fractions: tuple[float, ...]

    def sentence(self) -> str:
        """What is the matter, in words."""
        if self.right:
            return f"{self.key} is right."
        if not self.lost:
            return f"{self.key} holds the right positions, as {self.dtype.name} where int64 is usual."
        positions = ", ".join(map(str, self.lost[:8])) + (" …" if len(self.lost) > 8 else "")
        examples = ", ".join(f"{value:g}" for value in self.fractions[:3])
        return (
            f"{self.key} is broken ({self.dtype.name}{', such as ' + examples if examples else ''}): "
            f"a loader loses position{'s' if len(self.lost) > 1 else ''} {positions}."
        )


def rename_nai(plan: Plan, found: Identification) -> Plan:
    """The plan with NovelAI's text-encoder keys under the names that loaders expect."""
    renames = {old: new for old, new in found.renames.items() if old in plan.tensors and new not in plan.tensors}
    if not renames:
        return plan
    return replace(
        plan,
        tensors={renames.get(key, key): tensor for key, tensor in plan.tensors.items()},
        changed=(*plan.changed, *(Changed(new, f"renamed from {old}") for old, new in renames.items())),
        operations=(*plan.operations, "rename NAI text encoder keys"),
    )


def fix_position_ids(plan: Plan, found: Identification) -> Plan:
    """The plan with every broken position_ids tensor rewritten to int64 0, 1, 2 …; reads those small tensors."""
    import numpy as np

    tensors = dict(plan.tensors)
    changed = []
    for key in (name for old in found.position_ids for name in {old, found.renames.get(old, old)}):
        tensor = tensors.get(key)
        if tensor is None or not _plausible(tensor) or look_at_position_ids(key, tensor).right:
            continue
        count = numel(tensor)
        tensors[key] = Filled(np.arange(count, dtype="<i8").tobytes(), DType.I64, tensor.shape)
        changed.append(Changed(key, f"rewritten to 0…{count - 1} (int64)"))
    if not changed:
        return plan
    operations = (*plan.operations, "fix position ids")
    return replace(plan, tensors=tensors, changed=(*plan.changed, *changed), operations=operations)


def position_ids(model: Model, found: Identification) -> tuple[PositionIds, ...]:
    """The state of each position_ids tensor of the model; reads these small tensors and nothing else."""
    tensors = ((key, model.tensors[key]) for key in found.position_ids)
    return tuple(look_at_position_ids(key, tensor) for key, tensor in tensors if _plausible(tensor))


def _plausible(tensor: Tensor) -> bool:
    return 0 < numel(tensor) <= _LARGEST and (tensor.dtype.castable or tensor.dtype.kind == "int")


def _is_usual(tensor: Tensor) -> bool:
    """Whether this is int64 0, 1, 2 … as it should be: told without NumPy, so that a look at a model starts at once."""
    if not isinstance(tensor, Stored) or tensor.dtype is not DType.I64 or tensor.big_endian:
        return False
    data = bytearray(numel(tensor) * 8)
    tensor.source.read_at(tensor.offset, memoryview(data))
    return data == b"".join(position.to_bytes(8, "little") for position in range(numel(tensor)))


def look_at_position_ids(key: str, tensor: Tensor) -> PositionIds:
    """Read one position_ids tensor, of any number type, and say what a loader makes of it."""
    if _is_usual(tensor):
        return PositionIds(key, tensor.dtype, True, (), ())
    import numpy as np

    from lib_toolkit.casting import convert

    raw = read_all(tensor)
    if tensor.dtype.castable:
        wide = np.empty(numel(tensor) * 8, dtype=np.uint8)
        convert(raw, tensor.dtype, wide, DType.F64)
        values = wide.view("<f8")
    else:
        values = raw.view(tensor.dtype.storage).astype(np.float64)
    with np.errstate(invalid="ignore"):
        loaded = set(np.trunc(values[np.isfinite(values)]).astype(np.int64).tolist())
    lost = tuple(position for position in range(values.size) if position not in loaded)
    fractions = tuple(float(value) for value in values if value != np.trunc(value))
    right = tensor.dtype is DType.I64 and bool((values == np.arange(values.size)).all())
    return PositionIds(key, tensor.dtype, right, lost, fractions)
