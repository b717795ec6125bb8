"""What identification found: components with their evidence, left-over tensors by class, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lib_toolkit.architectures.components import Component
from lib_toolkit.architectures.family import Shape
from lib_toolkit.architectures.lora import LoraInfo
from lib_toolkit.architectures.registry import Architecture


@dataclass(frozen=True)
class WrongShape:
    """A tensor that is there but shaped otherwise than its component asks."""

    key: str
    expected: Shape
    found: Shape


@dataclass(frozen=True)
class Match:
    """One component in a file, with all that speaks for and against it.

    ``keys`` leads from canonical bare keys (the family's native layout: ldm, HF) to keys of the file, for every
    tensor that is there; other tuples hold keys of the file, or what they would be called in it. ``missing``
    are required keys only; ``missing_optional`` what a complete file may lack too. ``extra`` are tensors under
    the component's prefix that it does not know. ``tensors``, ``parameters`` and ``bytes`` count ``keys``.
    """

    component: Component
    prefix: str
    layout: str
    keys: Mapping[str, str]
    missing: tuple[str, ...] = ()
    missing_optional: tuple[str, ...] = ()
    wrong_shape: tuple[WrongShape, ...] = ()
    extra: tuple[str, ...] = ()
    required: int = 0
    named: bool = True
    tensors: int = 0
    parameters: int = 0
    bytes: int = 0

    @property
    def complete(self) -> bool:
        """Every required tensor is there, in the right shape."""
        return not self.missing and not self.wrong_shape


@dataclass(frozen=True)
class Rejected:
    """What the file is not, why, and some of the keys that tell."""

    name: str
    reason: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leftover:
    """A tensor that no component knows. ``belongs_to``: the prefix of the component in which it stands."""

    key: str
    bytes: int
    reason: str
    belongs_to: str | None = None


@dataclass(frozen=True)
class Leftovers:
    """Tensors outside the components: to be kept with what they belong to, of no use for pictures, unknown."""

    protected: tuple[Leftover, ...] = ()
    removable: tuple[Leftover, ...] = ()
    unknown: tuple[Leftover, ...] = ()


@dataclass(frozen=True)
class Identification:
    """What a model is. ``name`` is for people (``SD-v1``, ``UNET-v1-BROKEN``); ``architecture`` the registry's
    entry, for a broken file that of the nearest whole one, None for an unknown size or file.

    ``intact``: every class of the architecture is complete. ``position_ids``: file keys of the text encoders'
    position ids. ``renames``: keys of a NovelAI-named text encoder to what loaders expect.
    """

    architecture: Architecture | None
    name: str
    id: str | None
    kind: str
    intact: bool
    base: str | None = None
    missing_classes: tuple[str, ...] = ()
    components: tuple[Match, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    leftovers: Leftovers = field(default_factory=Leftovers)
    buffers: tuple[str, ...] = ()
    position_ids: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    quantised: str | None = None
    lora: LoraInfo | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def component_of(self) -> dict[str, Match]:
        """The component of each key of the file that belongs to one."""
        return {key: match for match in self.components for key in match.keys.values()}
