"""Low-rank adapters: which base model their modules belong to, and of what rank and kind they are.

Module names are those of the base's generated tables. kohya-ss writes them with dots flattened to ``_``, which
cannot be undone by itself: the flattened names of all modules are generated and looked up. Suffixes by
algorithm: kohya-ss/sd-scripts, KohakuBlueleaf/LyCORIS, PEFT, diffusers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from lib_toolkit.architectures.components import COMPONENTS
from lib_toolkit.architectures.family import Family, Shape, Shapes

SUFFIXES: Mapping[str, tuple[str, str]] = {
    ".lora_down.weight": ("LoRA", "down"),
    ".lora_up.weight": ("LoRA", "up"),
    ".lora_mid.weight": ("LoCon", "mid"),
    ".lora_A.weight": ("LoRA", "down"),
    ".lora_B.weight": ("LoRA", "up"),
    ".lora_A.default.weight": ("LoRA", "down"),
    ".lora_B.default.weight": ("LoRA", "up"),
    ".lora.down.weight": ("LoRA", "down"),
    ".lora.up.weight": ("LoRA", "up"),
    "_lora.down.weight": ("LoRA", "down"),
    "_lora.up.weight": ("LoRA", "up"),
    ".lora_linear_layer.down.weight": ("LoRA", "down"),
    ".lora_linear_layer.up.weight": ("LoRA", "up"),
    ".lora_magnitude_vector": ("DoRA", "scale"),
    ".dora_scale": ("DoRA", "scale"),
    ".alpha": ("", "alpha"),
    ".hada_w1_a": ("LoHa", "up"),
    ".hada_w1_b": ("LoHa", "down"),
    ".hada_w2_a": ("LoHa", "w2_a"),
    ".hada_w2_b": ("LoHa", "w2_b"),
    ".hada_t1": ("LoHa", "t1"),
    ".hada_t2": ("LoHa", "t2"),
    ".lokr_w1": ("LoKr", "w1"),
    ".lokr_w1_a": ("LoKr", "w1_a"),
    ".lokr_w1_b": ("LoKr", "w1_b"),
    ".lokr_w2": ("LoKr", "w2"),
    ".lokr_w2_a": ("LoKr", "w2_a"),
    ".lokr_w2_b": ("LoKr", "w2_b"),
    ".lokr_t2": ("LoKr", "t2"),
    ".oft_blocks": ("OFT", "blocks"),
    ".on_input": ("IA3", "on_input"),
    ".diff": ("full difference", "diff"),
    ".diff_b": ("full difference", "diff_b"),
    ".w_norm": ("norm difference", "w_norm"),
    ".b_norm": ("norm difference", "b_norm"),
    ".a1.weight": ("GLoRA", "a1"),
    ".a2.weight": ("GLoRA", "a2"),
    ".b1.weight": ("GLoRA", "b1"),
    ".b2.weight": ("GLoRA", "b2"),
    ".bm.weight": ("GLoRA", "bm"),
}
"""End of a key to (algorithm, role of the tensor)."""

_PREFIXES: tuple[tuple[str, str, str], ...] = (
    ("lora_unet_", "unet", "kohya"),
    ("lora_te1_", "te1", "kohya"),
    ("lora_te2_", "te2", "kohya"),
    ("lora_te3_", "te3", "kohya"),
    ("lora_te_", "te", "kohya"),
    ("lycoris_", "unet", "lycoris"),
    ("base_model.model.unet.", "unet", "peft"),
    ("base_model.model.", "unet", "peft"),
    ("unet.", "unet", "diffusers"),
    ("text_encoder_2.", "te2", "diffusers"),
    ("text_encoder.", "text_encoder", "diffusers"),
    ("transformer.", "dit", "diffusers"),
    ("diffusion_model.", "unet", "bare prefix"),
    ("model.diffusion_model.", "unet", "bare prefix"),
    ("", "unet", "bare"),
)

_SD2_TEXT = ("CLIP-v2-HF", "CLIP-v2-HF-24")
_BASES: tuple[tuple[str, str, Mapping[str, tuple[str, ...]]], ...] = (
    ("sd1", "LoRA-v1", {"unet": ("UNET-v1-SD",), "te": ("CLIP-v1-SD",), "text_encoder": ("CLIP-v1-SD",)}),
    ("sd2", "LoRA-v2", {"unet": ("UNET-v2-SD",), "te": _SD2_TEXT, "text_encoder": _SD2_TEXT}),
    (
        "sdxl",
        "LoRA-SDXL",
        {"unet": ("UNET-XL-SD",), "te1": ("CLIP-XL-L",), "te2": ("CLIP-XL-G-HF",), "text_encoder": ("CLIP-XL-L",)},
    ),
    ("sdxl-refiner", "LoRA-SDXL-Refiner", {"unet": ("UNET-XL-Refiner",), "te": ("CLIP-XL-G-HF",)}),
)
"""Base id, name of its LoRA, and the components whose modules it may change, by part of the name.

kohya-ss numbers the text encoders only where there are several, so that ``lora_te_`` is not SDXL.
"""

_BY_MODULE: tuple[tuple[str, str, str], ...] = (
    ("flux1", "LoRA-Flux1", r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]\d"),
    ("sd3", "LoRA-SD3", r"(^|[._])joint_blocks[._]\d"),
    ("sd3", "LoRA-SD3", r"(^|[._])transformer_blocks[._]\d+[._]attn2?[._]add_[qkv]_proj"),
)
"""Bases that module names alone tell, in order of what they prove: Flux has add_q_proj too."""

_BY_LAST = {
    last: tuple(sorted((ending for ending in SUFFIXES if ending.endswith(last)), key=len, reverse=True))
    for last in {ending[ending.rfind(".") :] for ending in SUFFIXES}
}
"""The endings of keys by what follows their last dot, the longest first."""

_MARKING = frozenset({"down", "up", "w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "blocks", "diff", "on_input"})
_GLORA = frozenset({"a1", "a2", "b1", "b2"})
"""Roles that mark an adapter only together: their endings are such as other models have too."""

_PAIRS = (("down", "up"), ("w1_a", "w1_b"), ("w2_a", "w2_b"), ("a1", "a2"), ("b1", "b2"))
"""Roles of which none means anything without the other."""

_HALVES: Mapping[str, str] = {"down": "down halves", "up": "up halves"}
_SHARE = 0.5
"""Share of the modules that must fit a base before it is named."""


@dataclass(frozen=True)
class LoraInfo:
    """An adapter. ``base`` is None where it is not known; ``ranks`` all ranks that occur, in order.

    ``candidates`` are bases that fit equally well, where there are several. ``keys`` are the adapter's keys.
    ``lame`` is the number of modules that lack a tensor without which the others mean nothing, and ``lacking`` says
    which tensors these are.
    """

    base: str | None
    name: str
    naming: str
    algorithms: tuple[str, ...]
    ranks: tuple[int, ...]
    alpha: bool
    modules: int
    resolved: int
    keys: tuple[str, ...]
    candidates: tuple[str, ...] = ()
    lame: int = 0
    lacking: str = ""


@dataclass(frozen=True)
class _Module:
    part: str
    name: str
    naming: str
    roles: dict[str, Shape]


def read_lora(shapes: Shapes) -> LoraInfo | None:
    """The adapter that a file's keys and shapes describe, None where most of them are no adapter's."""
    modules, keys, algorithms = _modules(shapes)
    marking = _MARKING | (_GLORA if any(module.roles.keys() >= _GLORA for module in modules) else frozenset())
    marked = [module for module in modules if marking & module.roles.keys()]
    if not marked or 2 * len(keys) < len(shapes):
        return None
    counts = _fitting(marked)
    best = max(counts.values())
    bases = tuple(base for base, count in counts.items() if count == best) if best >= _SHARE * len(marked) else ()
    base, name = _named_base(bases, marked)
    lacking = [lacks for module in marked if (lacks := _lacking(module.roles.keys()))]
    return LoraInfo(
        base=base,
        name=name,
        naming=Counter(module.naming for module in marked).most_common(1)[0][0],
        algorithms=tuple(sorted(algorithms)),
        ranks=tuple(sorted({rank for module in marked if (rank := _rank(module.roles)) is not None})),
        alpha=any("alpha" in module.roles for module in modules),
        modules=len(marked),
        resolved=best if bases else 0,
        keys=keys,
        candidates=bases if len(bases) > 1 else (),
        lame=len(lacking),
        lacking=" and ".join(_HALVES.get(role, role) for role in sorted(set().union(*lacking))),
    )


def _lacking(roles: Set[str]) -> set[str]:
    """The roles that a module needs for those that it has."""
    lacking = {other for pair in _PAIRS for one, other in (pair, pair[::-1]) if one in roles and other not in roles}
    first, second = (any(role in roles for role in (name, f"{name}_a", f"{name}_b")) for name in ("w1", "w2"))
    if first != second and not roles & {"down", "up"}:
        lacking.add("w2" if first else "w1")
    if roles & _GLORA:
        lacking |= _GLORA - roles
    return lacking


def _named_base(bases: tuple[str, ...], modules: Iterable[_Module]) -> tuple[str | None, str]:
    if len(bases) == 1:
        return bases[0], next(name for base, name, _ in _BASES if base == bases[0])
    if not bases:
        names = [module.name for module in modules]
        for base, name, pattern in _BY_MODULE:
            if any(re.search(pattern, module) for module in names):
                return base, name
    return None, "LoRA"


def _modules(shapes: Shapes) -> tuple[list[_Module], tuple[str, ...], set[str]]:
    found: dict[str, dict[str, Shape]] = {}
    keys: list[str] = []
    algorithms: set[str] = set()
    for key, shape in shapes.items():
        for ending in _BY_LAST.get(key[key.rfind(".") :], ()):
            if key.endswith(ending):
                algorithm, role = SUFFIXES[ending]
                if algorithm:
                    algorithms.add(algorithm)
                found.setdefault(key[: -len(ending)], {})[role] = shape
                keys.append(key)
                break
    return [_module(name, roles) for name, roles in found.items()], tuple(keys), algorithms


def _module(path: str, roles: dict[str, Shape]) -> _Module:
    for prefix, part, naming in _PREFIXES:
        if path.startswith(prefix):
            # diffusers of 2023 wrote attention adapters inside the attention's processor.
            name = path.removeprefix(prefix).replace(".processor.", ".").replace(".to_out.lora", ".to_out.0.lora")
            return _Module(part, name.removesuffix("_lora"), naming, roles)
    raise AssertionError("the empty prefix fits every name")


@lru_cache(maxsize=32)
def _known_modules(component: str) -> Mapping[str, Shape]:
    """Module names, dotted and flattened, in every layout of a component, with the shapes of their weights."""
    family = next(entry.family for entry in COMPONENTS if entry.name == component)
    if family is None:
        return {}
    modules: dict[str, Shape] = {}
    for layout in (name for name in family.layouts if name in ("ldm", "diffusers", "hf")):
        for key, shape in _weights(family.within(layout)):
            modules[key] = modules[key.replace(".", "_")] = shape
            if key.endswith(".to_out.0"):
                modules[key.removesuffix(".0")] = shape
    return modules


def _weights(family: Family) -> list[tuple[str, Shape]]:
    return [(key[: -len(".weight")], shape) for key, shape in family.table().items() if key.endswith(".weight")]


def _fitting(modules: Sequence[_Module]) -> dict[str, int]:
    """How many modules each base has, with inputs and outputs as the adapter has them."""
    counts = {base: 0 for base, _, _ in _BASES}
    for module in modules:
        dimensions = _dimensions(module.roles)
        for base, _, parts in _BASES:
            for component in parts.get(module.part, ()):
                shape = _known_modules(component).get(module.name)
                if shape is not None and (dimensions is None or dimensions == _outer(shape)):
                    counts[base] += 1
                    break
    return counts


def _outer(shape: Shape) -> tuple[int, int]:
    """(outputs, inputs) of a weight."""
    return (shape[0], shape[1]) if len(shape) > 1 else (shape[0], shape[0])


def _dimensions(roles: Mapping[str, Shape]) -> tuple[int, int] | None:
    """(outputs, inputs) of the weight that an adapter changes, None where its tensors do not tell."""
    down, up = roles.get("down"), roles.get("up")
    if down and up and len(down) > 1 and "t1" not in roles:
        return up[0], down[1]
    if "diff" in roles and len(roles["diff"]) > 1:
        return _outer(roles["diff"])
    if roles.keys() >= _GLORA and all(len(roles[role]) > 1 for role in _GLORA):
        b1, b2 = roles["b1"], roles["b2"]
        return (b1[0], b2[1]) if b1[1] == b2[0] else (b2[0], b1[1])  # the second way is that of its first releases
    first, second = _factor(roles, "w1"), _factor(roles, "w2")
    if first and second and "t2" not in roles:
        return first[0] * second[0], first[1] * second[1]
    return None


def _factor(roles: Mapping[str, Shape], name: str) -> tuple[int, int] | None:
    whole, left, right = roles.get(name), roles.get(f"{name}_a"), roles.get(f"{name}_b")
    if whole and len(whole) > 1:
        return whole[0], whole[1]
    if left and right and len(right) > 1:
        return left[0], right[1]
    return None


def _rank(roles: Mapping[str, Shape]) -> int | None:
    if roles.keys() >= _GLORA and all(len(roles[role]) > 1 for role in _GLORA):
        return min(roles["b1"][:2])
    for role in ("down", "w2_b", "w1_b"):
        shape = roles.get(role)
        if shape:
            return shape[0]
    return None
