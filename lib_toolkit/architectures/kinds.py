"""Small kinds of files that are told by a few names alone: probes as data, no tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lib_toolkit.architectures.family import Shapes


@dataclass(frozen=True)
class Kind:
    """A kind of file: ``name`` for people, and the test of its keys."""

    name: str
    kind: str
    holds: Callable[[Shapes], bool]


def _all(*patterns: str) -> Callable[[Shapes], bool]:
    """Every pattern is found at the beginning of some key."""
    compiled = tuple(re.compile(pattern) for pattern in patterns)
    return lambda shapes: all(any(pattern.match(key) for key in shapes) for pattern in compiled)


_HYPERNETWORK = re.compile(r"(320|640|768|1024|1280)\.(\d+\.)*(linear|linear1|linear2)\b")
_TOKEN_WIDTHS = frozenset({768, 1024, 1280})
_MOST_TOKENS = 75
"""Words that a prompt takes at once: no embedding that is meant to be used has more vectors."""


def _embedding(shapes: Shapes) -> bool:
    """One or two matrices of token vectors under the names of the WebUI, sd-scripts, or SDXL trainers; or one alone
    under the word that it stands for, as diffusers writes it (a single vector without a second dimension)."""
    if any(key.startswith("string_to_param.") for key in shapes):
        return True
    names = set(shapes)
    if names in ({"clip_l", "clip_g"}, {"emb_params"}, {"*"}):
        return all(shape and shape[-1] in _TOKEN_WIDTHS for shape in shapes.values())
    if len(shapes) == 1:
        ((name, shape),) = shapes.items()
        if name.endswith((".weight", ".bias")):
            return False  # of a layer
        return len(shape) in (1, 2) and shape[-1] in _TOKEN_WIDTHS and (len(shape) == 1 or shape[0] <= _MOST_TOKENS)
    return False


def _hypernetwork(shapes: Shapes) -> bool:
    return any(_HYPERNETWORK.match(key) for key in shapes)


KINDS: tuple[Kind, ...] = (
    Kind("Embedding", "embedding", _embedding),
    Kind("Hypernetwork", "hypernetwork", _hypernetwork),
    Kind("Upscaler (ESRGAN)", "upscaler", _all(r"model\.0\.weight$", r"model\.1\.sub\.0\.RDB1\.")),
    Kind("Upscaler (ESRGAN)", "upscaler", _all(r"conv_first\.weight$", r"body\.0\.rdb1\.")),
    Kind("Upscaler (ESRGAN)", "upscaler", _all(r"conv_first\.weight$", r"RRDB_trunk\.0\.RDB1\.")),
    Kind(
        "Motion module",
        "motion_module",
        _all(r"(module\.)?(down_blocks|up_blocks)\.\d+\.motion_modules\.0\.temporal_transformer\."),
    ),
    Kind("IP-Adapter", "ip_adapter", _all(r"image_proj\.", r"ip_adapter\.\d+\.to_k_ip\.weight$")),
    Kind("T2I-Adapter", "t2i_adapter", _all(r"(adapter\.)?body\.0\.(resnets\.0\.)?block1\.weight$")),
)
"""The order means nothing: no file satisfies two of them."""


def recognise(shapes: Shapes) -> Kind | None:
    """The one kind whose probe holds, None where none or several do."""
    found = {kind.kind: kind for kind in KINDS if kind.holds(shapes)}
    return next(iter(found.values())) if len(found) == 1 else None
