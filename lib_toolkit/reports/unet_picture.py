"""The U of a UNet as SVG, drawn from keys and shapes: blocks with their sizes, skips, conditioning, and a tint each.

Down the left stand the input blocks, at the bottom the middle block, up the right the output blocks; an output block
stands beside the input block whose channels it takes in. The picture needs no script and no network, and takes its
colours from the page (``currentColor`` and the variables of the report's style, with defaults).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from lib_toolkit.architectures.unet import unet_block
from lib_toolkit.identify import Match
from lib_toolkit.model import Model
from lib_toolkit.reports.html import Html, tag, text
from lib_toolkit.reports.numbers import human_bytes, human_count
from lib_toolkit.tensors import Tensor, nbytes, numel

_TRANSFORMER = re.compile(r"\.transformer_blocks\.(\d+)\.")
_BOX = re.compile(r"(IN|M|OUT)\d\d")
_RAILS: Mapping[str, str] = {"TIME": "time", "LABEL": "added conditions", "OUTC": "picture out"}

_ROW, _HEIGHT, _WIDTH, _INDENT = 44, 34, 236, 22
_LEFT, _RIGHT, _TOP = 16, 620, 62
_RAIL_PLACES: Mapping[str, tuple[int, int]] = {
    "TIME": (_LEFT, 226),
    "LABEL": (_LEFT + 240, 300),
    "OUTC": (_RIGHT - 12, _WIDTH + 12),
}
_TOTAL_WIDTH = _RIGHT + _WIDTH + 16

_STYLE = """
.u-box{fill:var(--card,#fff);stroke:var(--frame,#8a93a6);stroke-width:1.2}
.u-tint{fill:var(--u-tint,#d9480f);stroke:none}
.u-hatch{stroke:currentColor;stroke-width:2;opacity:.32}
.u-skip{fill:none;stroke:var(--frame,#8a93a6);stroke-width:1.4;stroke-dasharray:5 4}
.u-flow{fill:none;stroke:var(--soft,#5b6376);stroke-width:1.6}
.u-rail{fill:none;stroke:var(--accent,#3452c4);stroke-width:1.6;opacity:.65}
.u-name{font-weight:650}.u-soft{opacity:.75}.u-odd{stroke:var(--bad,#b3261e);stroke-width:2.4}
.u-block:hover .u-box{stroke-width:2.4}
"""


@dataclass(frozen=True)
class UBlock:
    """One block of a UNet. ``kind``: what it is made of; ``inputs`` and ``outputs``: channels (None: not told by the
    file); ``level``: how often the picture was halved before it; ``skip``: channels that come over the skip, for
    output blocks. ``types``: bytes by element type; ``missing``: required tensors that the file lacks."""

    name: str
    kind: str
    inputs: int | None
    outputs: int | None
    level: int
    tensors: int
    parameters: int
    types: Mapping[str, int]
    skip: int | None = None
    missing: int = 0

    @property
    def bytes(self) -> int:
        return sum(self.types.values())


@dataclass(frozen=True)
class Overlay:
    """What tints the blocks: a figure by block from 0 on, its name, and what a hover says more by block.

    A block without a figure is hatched, and ``gaps`` says why it has none.
    """

    title: str
    values: Mapping[str, float]
    captions: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)

    def gap(self, block: str) -> str | None:
        """Why the block has no figure; None where it has one."""
        return None if block in self.values else self.gaps.get(block, "not compared")

    def share(self, block: str) -> float:
        """The block's figure as a share of the largest, 0 to 1."""
        top = max(self.values.values(), default=0.0)
        return self.values.get(block, 0.0) / top if top > 0 else 0.0


def unet_blocks(match: Match, model: Model) -> tuple[UBlock, ...]:
    """The blocks of a UNet in the order of computation: TIME and LABEL, IN, M00, OUT, OUTC. Reads names alone."""
    gathered: dict[str, dict[str, Tensor]] = {}
    for native, key in match.keys.items():
        gathered.setdefault(unet_block(native), {})[native] = model.tensors[key]
    missing = _missing(match)
    made: dict[str, UBlock] = {}
    level, current = 0, None
    skips: list[int | None] = []
    for name in sorted({*gathered, *missing}, key=_order):
        tensors = gathered.get(name, {})
        kind = _kind(tensors)
        inputs, outputs = _channels(name, tensors)
        inputs, outputs = (current if inputs is None else inputs), (current if outputs is None else outputs)
        if "Down" in kind:
            level += 1
        skip = skips.pop() if name.startswith("OUT") and _BOX.fullmatch(name) and skips else None
        made[name] = _block(name, kind, inputs, outputs, level, tensors, skip, missing.get(name, 0))
        if "Up" in kind:
            level = max(0, level - 1)
        if _BOX.fullmatch(name):
            current = outputs
            skips += [outputs] if name.startswith("IN") else []
    return tuple(made.values())


def skips_fit(blocks: Sequence[UBlock]) -> bool:
    """Whether every output block takes in as many channels as come from below and over its skip."""
    boxes = [block for block in blocks if _BOX.fullmatch(block.name)]
    before: UBlock | None = None
    for block in boxes:
        told = None not in (block.inputs, block.skip) and before is not None and before.outputs is not None
        if told and block.name.startswith("OUT") and block.inputs != (before.outputs or 0) + (block.skip or 0):  # type: ignore[union-attr]
            return False
        before = block
    return True


def unet_svg(blocks: Sequence[UBlock], overlay: Overlay | None = None, title: str = "UNet") -> Html:
    """The picture. A hover on a block shows its figures; without an overlay blocks are plain."""
    boxes = [block for block in blocks if _BOX.fullmatch(block.name)]
    downs = [block for block in boxes if block.name.startswith("IN")]
    ups = [block for block in boxes if block.name.startswith("OUT")]
    middle = [block for block in boxes if block.name.startswith("M")]
    rows = max(len(downs), len(ups), 1)
    places = {block.name: (_LEFT + _INDENT * block.level, _TOP + _ROW * i) for i, block in enumerate(downs)}
    places |= {
        block.name: (_RIGHT - _INDENT * block.level, _TOP + _ROW * (rows - 1 - i)) for i, block in enumerate(ups)
    }
    places |= {block.name: ((_TOTAL_WIDTH - _WIDTH) // 2, _TOP + _ROW * rows) for block in middle}
    height = _TOP + _ROW * (rows + 1) + 34
    parts: list[str] = [tag("title", title), tag("style", Html(_STYLE))]
    hatch = f"u-hatch-{zlib.crc32(repr((blocks, overlay)).encode()):08x}"
    hatched = overlay is not None and any(overlay.gap(block.name) for block in blocks)
    parts += [_pattern(hatch)] if hatched else []
    parts += _rails([block for block in blocks if block.name in _RAILS], overlay, hatch)
    parts += _skips(downs, ups, places)
    parts += _flow([block.name for block in boxes], places)
    parts += [_box(block, places[block.name], overlay, hatch) for block in boxes]
    parts.append(_legend(overlay, height, hatch if hatched else None) if overlay else Html(""))
    return tag(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_TOTAL_WIDTH} {height}",
        role="img",
        class_="model-toolkit-unet",
        font_family="system-ui, sans-serif",
        font_size="12",
        fill="currentColor",
        aria_label=title,
    )


def _block(
    name: str,
    kind: str,
    inputs: int | None,
    outputs: int | None,
    level: int,
    tensors: Mapping[str, Tensor],
    skip: int | None,
    missing: int,
) -> UBlock:
    types: dict[str, int] = {}
    for tensor in tensors.values():
        types[tensor.dtype.name] = types.get(tensor.dtype.name, 0) + nbytes(tensor)
    parameters = sum(numel(tensor) for tensor in tensors.values())
    return UBlock(name, kind, inputs, outputs, level, len(tensors), parameters, types, skip, missing)


def _missing(match: Match) -> dict[str, int]:
    """How many required tensors of each block the file lacks."""
    family = match.component.family
    counts: dict[str, int] = {}
    if family is None or not match.missing:
        return counts
    native = family.within(match.layout).renames(family.layouts[0])
    for key in match.missing:
        name = unet_block(native.get(key[len(match.prefix) :], key[len(match.prefix) :]))
        counts[name] = counts.get(name, 0) + 1
    return counts


def _order(name: str) -> tuple[int, str]:
    ranks = {"TIME": 0, "LABEL": 1, "OUTC": 5}
    return ranks.get(name, 2 if name.startswith("IN") else 3 if name.startswith("M") else 4), name


def _kind(keys: Iterable[str]) -> str:
    """What a block is made of, by the names in it: Res + Attn×2 + Up."""
    names = list(keys)
    residuals = len({name.partition(".in_layers.")[0] for name in names if ".in_layers." in name})
    depths = [int(found[1]) + 1 for name in names if (found := _TRANSFORMER.search(name))]
    parts = [f"{residuals}×Res" if residuals > 1 else "Res"] * bool(residuals)
    parts += [f"Attn×{max(depths)}" if max(depths) > 1 else "Attn"] if depths else []
    parts += ["Down"] * any(".op." in name for name in names)
    parts += ["Up"] * any(name.endswith(".conv.weight") for name in names)
    return " + ".join(parts) or "Conv"


def _channels(name: str, tensors: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """Channels in and out: of the first residual block, or of the only convolution."""
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    residual = [shape for key, shape in shapes.items() if key.endswith(".in_layers.2.weight") and len(shape) == 4]
    if residual:
        return residual[0][1], residual[0][0]
    single = [shape for shape in shapes.values() if len(shape) == 4] if name != "OUTC" else []
    return (single[0][1], single[0][0]) if single else (None, None)


def _box(block: UBlock, place: tuple[int, int], overlay: Overlay | None, hatch: str) -> Html:
    x, y = place
    at = {"x": str(x), "y": str(y), "width": str(_WIDTH), "height": str(_HEIGHT), "rx": "7"}
    odd = " u-odd" if block.missing else ""
    name = tag("tspan", block.name, class_="u-name")
    gap = overlay.gap(block.name) if overlay is not None else None
    sizes = tag("tspan", f"{human_count(block.parameters) if gap else _arrow(block)} · ", class_="u-soft")
    # There is no room for both: why a block is hatched stands for its channels, which a hover tells.
    last = gap or tag("tspan", human_count(block.parameters), class_="u-soft")
    return tag(
        "g",
        tag("title", _hover(block, overlay)),
        tag("rect", **at, class_=f"u-box{odd}"),
        _tint(block.name, overlay, at, hatch),
        tag("text", name, f"  {block.kind}", x=str(x + 9), y=str(y + 14), **{"xml:space": "preserve"}),
        tag("text", sizes, last, x=str(x + 9), y=str(y + 28), font_size="11", **{"xml:space": "preserve"}),
        class_="u-block",
        data_block=block.name,
    )


def _tint(block: str, overlay: Overlay | None, at: Mapping[str, str], hatch: str) -> Html:
    """What lies over the frame ``at``: colour by the figure, hatching without one."""
    if overlay is None:
        return Html("")
    if overlay.gap(block) is not None:
        return tag("rect", **at, fill=f"url(#{hatch})")
    return tag("rect", **at, class_="u-tint", fill_opacity=f"{0.8 * overlay.share(block):.3f}")


def _pattern(name: str) -> Html:
    """Slanted lines in the colour of the text, so that they show in dark, in light and in print."""
    size = {"width": "9", "height": "9", "patternUnits": "userSpaceOnUse", "patternTransform": "rotate(45)"}
    return tag("defs", tag("pattern", tag("path", d="M0 0 V9", class_="u-hatch"), id=name, **size))


def _arrow(block: UBlock) -> str:
    if block.inputs is None or block.outputs is None:
        return "channels not told"
    return f"{block.inputs:,} → {block.outputs:,} channels{f', 1/{2**block.level}' if block.level else ''}"


def _hover(block: UBlock, overlay: Overlay | None) -> str:
    types = ", ".join(f"{name} {human_bytes(size)}" for name, size in block.types.items())
    told = [
        f"{block.name}: {block.kind}, {_arrow(block)}",
        f"{block.parameters:,} parameters in {block.tensors:,} tensors; {types}",
    ]
    if block.skip is not None:
        told.append(f"takes {block.skip:,} channels over the skip")
    if block.missing:
        told.append(f"{block.missing:,} tensors are missing")
    if overlay is not None:
        value = overlay.captions.get(block.name) or overlay.gap(block.name) or f"{overlay.values[block.name]:.4g}"
        told.append(f"{overlay.title}: {value}")
    return " · ".join(told)


def _skips(downs: Sequence[UBlock], ups: Sequence[UBlock], places: Mapping[str, tuple[int, int]]) -> list[Html]:
    made = []
    for down, up in zip(downs, reversed(ups), strict=False):
        (x, y), (far, other) = places[down.name], places[up.name]
        start, end = x + _WIDTH, far
        path = f"M{start} {y + _HEIGHT // 2} L{end} {other + _HEIGHT // 2}"
        words = f"skip: {down.name} → {up.name}, {down.outputs or 0:,} channels"
        made.append(tag("path", tag("title", words), d=path, class_="u-skip"))
    return made


def _flow(names: Sequence[str], places: Mapping[str, tuple[int, int]]) -> list[Html]:
    """Short lines from each block to the next."""
    made = []
    for before, after in pairwise(names):
        (x, y), (far, other) = places[before], places[after]
        bottom = other > y
        middle, beyond = x + _WIDTH // 2, far + _WIDTH // 2
        start, end = (y + _HEIGHT, other) if bottom else (y, other + _HEIGHT)
        made.append(tag("path", d=f"M{middle} {start} L{beyond} {end}", class_="u-flow"))
    return made


def _rails(blocks: Sequence[UBlock], overlay: Overlay | None, hatch: str) -> list[Html]:
    """Time and added conditions, which reach every residual block, and the layers that make the picture."""
    made: list[Html] = []
    for block in blocks:
        x, width = _RAIL_PLACES[block.name]
        words = f"{block.name} ({_RAILS[block.name]}): {human_count(block.parameters)}"
        gap = overlay.gap(block.name) if overlay is not None else None
        at = {"x": str(x), "y": "8", "width": str(width), "height": "22", "rx": "5"}
        made.append(
            tag(
                "g",
                tag("title", _hover(block, overlay)),
                tag("rect", **at, class_="u-box"),
                _tint(block.name, overlay, at, hatch),
                tag("text", f"{words}, {gap}" if gap else words, x=str(x + 7), y="23", font_size="11"),
                tag("path", d=f"M{x} 36 h{width}", class_="u-rail"),
                class_="u-rail-block",
                data_block=block.name,
            )
        )
    return made


def _legend(overlay: Overlay, height: int, hatch: str | None) -> Html:
    top = max(overlay.values.values(), default=0.0)
    y = height - 16
    steps = [
        tag(
            "rect",
            x=str(_LEFT + 18 * i),
            y=str(y - 11),
            width="18",
            height="12",
            class_="u-tint",
            fill_opacity=f"{i / 5:.2f}",
        )
        for i in range(5)
    ]
    largest = next((name for name, value in overlay.values.items() if value == top and top > 0), None)
    said = (overlay.captions.get(largest) or f"{top:.4g}").partition(",")[0] if largest else "0"
    where = f" ({largest})" if largest else ""
    swatch = {"x": str(_RIGHT), "y": str(y - 11), "width": "36", "height": "12"}
    words = {"x": str(_RIGHT + 46), "y": str(y), "font_size": "11"}
    hatched = [tag("rect", **swatch, fill=f"url(#{hatch})"), tag("text", "not compared", **words)] if hatch else []
    return tag(
        "g",
        *steps,
        *hatched,
        tag("text", text(f"{overlay.title}: 0 to {said}{where}"), x=str(_LEFT + 100), y=str(y), font_size="11"),
    )
