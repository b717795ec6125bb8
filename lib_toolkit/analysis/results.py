"""What the analyses find, as plain data: reports render it, doors offer its remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from lib_toolkit.hashing import FileHashes
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model


class Severity(str, Enum):
    """How much a finding matters: ``error``: it will not work; ``warning``: it may not; ``info``: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What can be done about a finding. ``wish``: the field of ``edits.recipes.Wishes`` (or other option) that does
    it, None where only the user can; ``effect``: what it changes, in a sentence."""

    sentence: str
    effect: str
    wish: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the health of a model. ``id`` is stable (``nan``, ``fp16-overflow`` …), ``keys`` are examples."""

    id: str
    severity: Severity
    sentence: str
    remedy: Remedy | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorHealth:
    """Numbers of elements of one tensor that are NaN, infinite, zero, or finite but beyond FP16.

    ``below_fp16`` are those that are not zero and would be at FP16.
    ``largest`` is the largest finite magnitude, rounded to FP16 unless it is beyond that.
    """

    count: int
    nan: int = 0
    infinite: int = 0
    zero: int = 0
    beyond_fp16: int = 0
    largest: float = 0.0
    below_fp16: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """The (UNET/VAE/CLIP) figures that users of model pages know.

    None where the component is absent or incomplete, of a class for which no figure is defined, or holds NaNs.

    ``known`` are sentences about figures that are those of a known component.
    """

    unet: int | None
    vae: int | None
    clip: int | None
    known: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As written on model pages: 2020/2982/0130, with ---- for what is absent."""
        return "/".join("----" if n is None else f"{n:04d}" for n in (self.unet, self.vae, self.clip))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of one component (``prefix`` and ``component`` tell which), or of a whole file.

    ``value`` covers the required tensors, ``rest`` buffers, position ids and unused optional layers (None where there
    are none). ``names`` are what shipped tables and the user call this value.
    """

    component: str
    cls: str
    prefix: str
    value: str
    rest: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything that is known of a model file. Of a quick report (header only), what needs values is None or empty.

    ``embedded`` holds hashes that the file states about itself, by the name of the metadata entry, and whether each
    agrees with the real one (None: cannot be checked).
    """

    model: Model
    found: Identification
    quick: bool
    findings: tuple[Finding, ...]
    metric: Metric | None = None
    fingerprints: tuple[Fingerprint, ...] = ()
    file_fingerprint: str | None = None
    hashes: FileHashes | None = None
    embedded: Mapping[str, tuple[str, bool | None]] = field(default_factory=dict)
    health: Mapping[str, TensorHealth] = field(default_factory=dict)
