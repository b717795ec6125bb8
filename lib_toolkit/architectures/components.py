"""The named sizes of each family: a component is a family with a name, and the places where it is at home.

A new size is one more instance here. Sizes: the published files' own tensors; scaled-down demonstration sizes
have names of their own, so that nothing takes them for the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_toolkit.architectures import prefixes
from lib_toolkit.architectures.clip import CLIPText, OpenCLIPText
from lib_toolkit.architectures.controlnet import ControlNet
from lib_toolkit.architectures.depth import DPTHybrid
from lib_toolkit.architectures.family import Family
from lib_toolkit.architectures.unet import UNet, sized
from lib_toolkit.architectures.vae import KLVAE


@dataclass(frozen=True)
class Component:
    """A named size of a family in the layouts that go by this name.

    ``cls`` is the class that an architecture asks for (``UNET-v1``), ``id`` the stable machine name, ``kind``
    what a file with nothing else is. ``homes`` are prefixes in checkpoints; ``alone`` are the prefixes under
    which a file of its own is whole. ``family`` is None for what has no table (adapters).
    """

    name: str
    cls: str
    id: str
    kind: str
    family: Family | None = None
    layouts: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    alone: tuple[str, ...] = ("",)

    def families(self) -> tuple[Family, ...]:
        """The family in each of the component's layouts."""
        return () if self.family is None else tuple(self.family.within(layout) for layout in self.layouts)


def _unet(name: str, cls: str, identity: str, family: UNet) -> tuple[Component, Component]:
    """A UNet and its EMA copy."""
    unet = Component(name, cls, identity, "unet", family, ("ldm", "diffusers"), (prefixes.MAIN,))
    ema = f"{name.removesuffix('-SD')}-EMA"
    return unet, replace(unet, name=ema, layouts=("ema",), homes=(prefixes.EMA,), alone=())


_XL = sized(320, (1, 2, 4), (0, 2, 10), context=2048, linear=True, vector=2816)
_V2 = sized(context=1024, linear=True)
_XL_DEMO = sized(32, (1, 1, 2), (0, 1, 2), context=96, linear=True, vector=160)
_V1_DEMO = sized(32, (1, 1, 2, 2), context=64)


def _distilled(down: tuple[int, ...], up: tuple[tuple[int, ...], ...], middle: tuple[int, ...], blocks: int) -> UNet:
    """SDXL with fewer layers; ``blocks`` residual blocks a level."""
    return replace(_XL, down=tuple((depth,) * blocks for depth in down), up=up, middle=middle)


_UNETS: tuple[tuple[str, str, str, UNet], ...] = (
    ("UNET-v1-SD", "UNET-v1", "sd1", sized()),
    ("UNET-v1-Inpainting", "UNET-v1", "sd1-inpaint", sized(inputs=9)),
    ("UNET-v1-Pix2Pix", "UNET-v1-Pix2Pix", "sd1-pix2pix", sized(inputs=8)),
    ("UNET-v2-SD", "UNET-v2", "sd2", _V2),
    ("UNET-v2-Inpainting", "UNET-v2", "sd2-inpaint", replace(_V2, inputs=9)),
    ("UNET-v2-Depth", "UNET-v2-Depth", "sd2-depth", replace(_V2, inputs=5)),
    ("UNET-v2-Unclip-L", "UNET-v2-Unclip-L", "sd2-unclip-l", replace(_V2, vector=1536)),
    ("UNET-v2-Unclip-H", "UNET-v2-Unclip-H", "sd2-unclip-h", replace(_V2, vector=2048)),
    ("UNET-XL-SD", "UNET-XL", "sdxl", _XL),
    ("UNET-XL-Inpainting", "UNET-XL", "sdxl-inpaint", replace(_XL, inputs=9)),
    ("UNET-XL-Pix2Pix", "UNET-XL-Pix2Pix", "sdxl-pix2pix", replace(_XL, inputs=8)),
    (
        "UNET-XL-Refiner",
        "UNET-XL-Refiner",
        "sdxl-refiner",
        sized(384, depth=(0, 4, 4, 0), middle=(0, 4, 0), context=1280, linear=True, vector=2560),
    ),
    ("UNET-SSD-1B", "UNET-SSD-1B", "ssd-1b", _distilled((0, 2, 4), ((0, 0, 0), (2, 1, 1), (4, 4, 10)), (0,), 2)),
    ("UNET-Vega", "UNET-Vega", "segmind-vega", _distilled((0, 1, 2), ((0,) * 3, (1,) * 3, (2,) * 3), (0,), 2)),
    ("UNET-KOALA-700M", "UNET-KOALA-700M", "koala-700m", _distilled((0, 2, 5), ((0,) * 2, (2,) * 2, (5,) * 2), (), 1)),
    (
        "UNET-KOALA-1B",
        "UNET-KOALA-1B",
        "koala-1b",
        _distilled((0, 2, 6), ((0,) * 2, (2,) * 2, (6,) * 2), (0, 6, 0), 1),
    ),
    ("UNET-v1-Demo", "UNET-v1-Demo", "sd-v1-demo", _V1_DEMO),
    ("UNET-XL-Demo", "UNET-XL-Demo", "sdxl-demo", _XL_DEMO),
)

_CLIP_L = CLIPText()
_CLIP_L_SPARE = replace(_CLIP_L, spare_last=True)
_TEXT = "text_encoder"
_CLIP_L_PLACES = (prefixes.CLIP_XL_L, "text_encoders.clip_l.transformer.", "te1.")
_CLIP_G_PLACES = ("text_encoders.clip_g.transformer.", "text_encoder_2.", "te2.")
_CLIP_G = OpenCLIPText(layers=32, width=1280, spare_last=True)
_CLIP_G_HF = CLIPText(layers=32, width=1280, ff=5120, projected=True, spare_last=True)
_WD = OpenCLIPText(layers=23, projected=False)
_H_HF = CLIPText(layers=23, width=1024, ff=4096)
_DEMO_CLIP = CLIPText(layers=2, width=64, ff=256, vocab=1000)
_DEMO_CLIP_L = replace(_DEMO_CLIP, layers=3, width=32, ff=128, spare_last=True)
_DEMO_CLIP_G = OpenCLIPText(layers=3, width=64, vocab=1000, spare_last=True)

_TEXT_ENCODERS = (
    Component("CLIP-v1-SD", "CLIP-v1", "clip-l", _TEXT, _CLIP_L, ("hf",), (prefixes.CLIP_V1,)),
    Component("CLIP-v1-NAI", "CLIP-v1", "clip-l", _TEXT, _CLIP_L, ("nai",), (prefixes.CLIP_V1,)),
    Component("CLIP-v2-SD", "CLIP-v2", "openclip-h", _TEXT, OpenCLIPText(), ("openclip",), (prefixes.CLIP_V2,)),
    Component("CLIP-v2-WD", "CLIP-v2", "openclip-h", _TEXT, _WD, ("openclip",), (prefixes.CLIP_V2,)),
    Component("CLIP-v2-HF", "CLIP-v2", "openclip-h", _TEXT, _H_HF, ("hf",), ("text_encoders.clip_h.transformer.",)),
    Component("CLIP-v2-HF-24", "CLIP-v2", "openclip-h", _TEXT, replace(_H_HF, layers=24, spare_last=True), ("hf",)),
    Component("CLIP-XL-L", "CLIP-XL-L", "clip-l", _TEXT, _CLIP_L_SPARE, ("hf",), _CLIP_L_PLACES),
    Component(
        "CLIP-XL-G",
        "CLIP-XL-G",
        "clip-bigg",
        _TEXT,
        _CLIP_G,
        ("openclip",),
        (prefixes.CLIP_XL_G, prefixes.CLIP_REFINER),
    ),
    Component("CLIP-XL-G-HF", "CLIP-XL-G", "clip-bigg", _TEXT, _CLIP_G_HF, ("hf",), _CLIP_G_PLACES),
    Component("CLIP-v1-Demo", "CLIP-v1-Demo", "clip-demo", _TEXT, _DEMO_CLIP, ("hf", "nai"), (prefixes.CLIP_V1,)),
    Component("CLIP-XL-L-Demo", "CLIP-XL-L-Demo", "clip-l-demo", _TEXT, _DEMO_CLIP_L, ("hf",), (prefixes.CLIP_XL_L,)),
    Component(
        "CLIP-XL-G-Demo", "CLIP-XL-G-Demo", "clip-g-demo", _TEXT, _DEMO_CLIP_G, ("openclip",), (prefixes.CLIP_XL_G,)
    ),
)

_VAE_LAYOUTS = ("ldm", "diffusers", "diffusers-2022")
_VAE_PLACES = (prefixes.VAE, "vae.")
_VAES = (
    Component("VAE-v1-SD", "VAE-v1", "vae-kl-4ch", "vae", KLVAE(), _VAE_LAYOUTS, _VAE_PLACES),
    Component(
        "VAE-KL-f4", "VAE-KL-f4", "vae-kl-4ch-f4", "vae", KLVAE(widths=(128, 256, 512)), _VAE_LAYOUTS, _VAE_PLACES
    ),
    Component(
        "VAE-KL-16ch", "VAE-KL-16ch", "vae-kl-16ch", "vae", KLVAE(latent=16, quant=False), _VAE_LAYOUTS, _VAE_PLACES
    ),
    Component(
        "VAE-v1-Demo", "VAE-v1-Demo", "vae-demo", "vae", KLVAE(widths=(32, 32, 32, 64)), _VAE_LAYOUTS, _VAE_PLACES
    ),
)


def _control(name: str, identity: str, unet: UNet) -> Component:
    family = ControlNet(unet=unet)
    layouts, homes = ("ldm", "diffusers"), (prefixes.CONTROL,)
    return Component(name, name, identity, "controlnet", family, layouts, homes, ("", prefixes.CONTROL))


_OTHERS = (
    Component("Depth-v2", "Depth-v2", "midas-dpt-hybrid", "depth", DPTHybrid(), ("midas",), (prefixes.DEPTH,)),
    _control("ControlNet-v1", "sd1", sized()),
    _control("ControlNet-v2", "sd2", _V2),
    _control("ControlNet-XL", "sdxl", _XL),
)

COMPONENTS: tuple[Component, ...] = (
    *(component for row in _UNETS for component in _unet(*row)),
    *_TEXT_ENCODERS,
    *_VAES,
    *_OTHERS,
)
"""Every named component; their order means nothing."""

FAMILIES: tuple[type[Family], ...] = (UNet, KLVAE, CLIPText, OpenCLIPText, ControlNet, DPTHybrid)
