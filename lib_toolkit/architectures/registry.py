"""Named architectures: which components make a whole file, and where each stands in it.

A new checkpoint architecture is one more row of ``_CHECKPOINTS``. Looking up takes names, classes and ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lib_toolkit.architectures import prefixes
from lib_toolkit.architectures.components import COMPONENTS, Component
from lib_toolkit.architectures.family import Shape
from lib_toolkit.architectures.junk import SCHEDULE
from lib_toolkit.errors import UsageError

_BY_NAME = {component.name: component for component in COMPONENTS}


@dataclass(frozen=True)
class Part:
    """A place in a file: one of ``components`` (the first is what a new file gets) under ``prefix``."""

    components: tuple[str, ...]
    prefix: str

    @property
    def cls(self) -> str:
        """The class that fills the place."""
        return _BY_NAME[self.components[0]].cls

    @property
    def component(self) -> Component:
        """What a new file gets here."""
        return _BY_NAME[self.components[0]]


@dataclass(frozen=True)
class Architecture:
    """A named kind of file. ``variant_of`` is the id of the plain architecture that this one is a variant of;
    ``buffers``: files of this kind usually carry the noise schedule."""

    name: str
    id: str | None
    kind: str
    parts: tuple[Part, ...] = ()
    variant_of: str | None = None
    buffers: bool = field(default=False, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that a whole file has."""
        return tuple(part.cls for part in self.parts)

    def table(self, *, ema: bool = False, nai: bool = False) -> dict[str, Shape]:
        """Every key of a whole file with its shape, prefixes included, schedule buffers not.

        ``ema`` adds the EMA copy of the UNet, ``nai`` names the text encoder as NovelAI does.
        """
        table: dict[str, Shape] = {}
        for part in self.parts:
            family = part.component.family
            if family is None:
                continue
            if nai and "nai" in family.layouts:
                family = family.within("nai")
            table.update((part.prefix + key, shape) for key, shape in family.table(rare=False).items())
            if ema and "ema" in family.layouts:
                copy = family.within("ema").table(rare=False)
                table.update((prefixes.EMA + key, shape) for key, shape in copy.items())
        return table

    def schedule(self) -> dict[str, Shape]:
        """The noise schedule's buffers that a file of this kind may carry, empty for components."""
        return dict.fromkeys(SCHEDULE, (1000,)) if self.buffers else {}


_CLIP_V1 = Part(("CLIP-v1-SD", "CLIP-v1-NAI"), prefixes.CLIP_V1)
_CLIP_V2 = Part(("CLIP-v2-SD", "CLIP-v2-WD"), prefixes.CLIP_V2)
_VAE = Part(("VAE-v1-SD",), prefixes.VAE)
_XL_TEXT = (Part(("CLIP-XL-L",), prefixes.CLIP_XL_L), Part(("CLIP-XL-G",), prefixes.CLIP_XL_G))


def _checkpoint(
    name: str, identity: str, unet: str, *others: Part, variant_of: str | None = None, buffers: bool = True
) -> Architecture:
    parts = (Part((unet,), prefixes.MAIN), *others)
    return Architecture(name, identity, "checkpoint", parts, variant_of, buffers)


_V1 = (_VAE, _CLIP_V1)
_V2 = (_VAE, _CLIP_V2)
_XL = (_VAE, *_XL_TEXT)
_REFINER_TEXT = Part(("CLIP-XL-G",), prefixes.CLIP_REFINER)
_CONTROL_V1 = Part(("ControlNet-v1",), prefixes.CONTROL)
_DEPTH_V2 = Part(("Depth-v2",), prefixes.DEPTH)
_VAE_DEMO = Part(("VAE-v1-Demo",), prefixes.VAE)
_V1_DEMO = (_VAE_DEMO, Part(("CLIP-v1-Demo",), prefixes.CLIP_V1))
_XL_DEMO = (
    _VAE_DEMO,
    Part(("CLIP-XL-L-Demo",), prefixes.CLIP_XL_L),
    Part(("CLIP-XL-G-Demo",), prefixes.CLIP_XL_G),
)

_CHECKPOINTS = (
    _checkpoint("SD-v1", "sd1", "UNET-v1-SD", *_V1),
    _checkpoint("SD-v1-Inpainting", "sd1-inpaint", "UNET-v1-Inpainting", *_V1, variant_of="sd1"),
    _checkpoint("SD-v1-Pix2Pix", "sd1-pix2pix", "UNET-v1-Pix2Pix", *_V1, variant_of="sd1"),
    _checkpoint("SD-v1-ControlNet", "sd1-controlnet", "UNET-v1-SD", *_V1, _CONTROL_V1, variant_of="sd1"),
    _checkpoint("SD-v2", "sd2", "UNET-v2-SD", *_V2),
    _checkpoint("SD-v2-Inpainting", "sd2-inpaint", "UNET-v2-Inpainting", *_V2, variant_of="sd2"),
    _checkpoint("SD-v2-Depth", "sd2-depth", "UNET-v2-Depth", *_V2, _DEPTH_V2, variant_of="sd2"),
    _checkpoint("SDXL", "sdxl", "UNET-XL-SD", *_XL),
    _checkpoint("SDXL-Inpainting", "sdxl-inpaint", "UNET-XL-Inpainting", *_XL, variant_of="sdxl"),
    _checkpoint("SDXL-Pix2Pix", "sdxl-pix2pix", "UNET-XL-Pix2Pix", *_XL, variant_of="sdxl"),
    _checkpoint("SDXL-Refiner", "sdxl-refiner", "UNET-XL-Refiner", _VAE, _REFINER_TEXT, variant_of="sdxl"),
    _checkpoint("SSD-1B", "ssd-1b", "UNET-SSD-1B", *_XL, variant_of="sdxl"),
    _checkpoint("Segmind-Vega", "segmind-vega", "UNET-Vega", *_XL, variant_of="sdxl"),
    _checkpoint("KOALA-700M", "koala-700m", "UNET-KOALA-700M", *_XL, variant_of="sdxl"),
    _checkpoint("KOALA-1B", "koala-1b", "UNET-KOALA-1B", *_XL, variant_of="sdxl"),
    _checkpoint("SD-v1-Demo", "sd-v1-demo", "UNET-v1-Demo", *_V1_DEMO),
    _checkpoint("SDXL-Demo", "sdxl-demo", "UNET-XL-Demo", *_XL_DEMO),
)


def _bare() -> tuple[Architecture, ...]:
    """Each component in a file of its own; one architecture for each class and id."""
    found: dict[tuple[str, str], Architecture] = {}
    for component in COMPONENTS:
        if "" in component.alone and (component.cls, component.id) not in found:
            part = Part((component.name,), "")
            found[component.cls, component.id] = Architecture(component.cls, component.id, component.kind, (part,))
    return tuple(found.values())


CHECKPOINTS: tuple[Architecture, ...] = _CHECKPOINTS
BARE: tuple[Architecture, ...] = _bare()
ARCHITECTURES: tuple[Architecture, ...] = (*CHECKPOINTS, *BARE)
"""All named architectures; their order means nothing, save that checkpoints are looked up before components."""


def architecture(name: str) -> Architecture:
    """The architecture with this name or id, a checkpoint before a component. Raises UsageError for none."""
    wanted = name.casefold()
    named = (entry for entry in ARCHITECTURES if entry.name.casefold() == wanted)
    identified = (entry for entry in ARCHITECTURES if entry.id is not None and entry.id.casefold() == wanted)
    found = next(named, None) or next(identified, None)
    if found is not None:
        return found
    names = ", ".join(entry.name for entry in CHECKPOINTS)
    raise UsageError(f"There is no architecture called {name!r}; known ones are {names}, and the component classes.")


def component(name: str) -> Component:
    """The component with this exact name. Raises UsageError for none."""
    found = _BY_NAME.get(name)
    if found is None:
        raise UsageError(f"There is no component called {name!r}; see the list of components.")
    return found


def components(name: str) -> tuple[Component, ...]:
    """The components with this name, of this class, or with this id. Raises UsageError for none."""
    wanted = name.casefold()
    found = tuple(
        component
        for component in COMPONENTS
        if wanted in (component.name.casefold(), component.cls.casefold(), component.id.casefold())
    )
    if not found:
        classes = ", ".join(sorted({component.cls for component in COMPONENTS}))
        raise UsageError(f"There is no component class called {name!r}; known ones are {classes}.")
    return found


def bare_architecture(component: Component) -> Architecture:
    """The architecture of a file that holds this component alone."""
    for entry in BARE:
        if (entry.name, entry.id) == (component.cls, component.id):
            return entry
    return Architecture(component.cls, component.id, component.kind)
