"""The settings of the toolkit: one table that a WebUI's settings page shows and that every host reads by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lib_toolkit.edits.precision import PRECISIONS
from lib_toolkit.streaming import MOST_WORKERS

Value: TypeAlias = "str | bool | int"


@dataclass(frozen=True)
class Setting:
    """One setting. ``choices`` are the values of a text, ``most`` is the largest value of a number (from 0).

    ``default`` also gives the type: texts, switches and whole numbers, since hosts keep settings as plain JSON.
    """

    key: str
    default: Value
    title: str
    explanation: str
    choices: tuple[str, ...] = ()
    most: int = 0

    def allows(self, value: object) -> bool:
        """Whether the value has the right type and lies within the choices or the range."""
        if type(value) is not type(self.default):
            return False
        if isinstance(value, int) and not isinstance(value, bool):
            return 0 <= value <= self.most
        return not self.choices or value in self.choices

    @property
    def told(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return f"choose {', '.join(self.choices)}"
        return "choose true or false" if isinstance(self.default, bool) else f"choose 0 to {self.most}"


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "autoprune",
        False,
        "Enable autopruning",
        "at each start and Reload UI, prunes what lies in models/Autoprune and moves it to its folder, in the "
        "background; nothing is removed before its result is written and read back",
    ),
    Setting(
        "fix_clip",
        False,
        "Fix broken CLIP position IDs",
        "merging can damage them; images of a fixed model differ slightly from those of its source",
    ),
    Setting(
        "precision",
        "auto",
        "Default precision",
        "of saved weights; auto makes fp16 of fp32 and leaves 16-bit weights as they are",
        choices=tuple(PRECISIONS),
    ),
    Setting(
        "keep_ema",
        False,
        "Keep the EMA copy",
        "the second UNet of training checkpoints, which only further training needs; it doubles the UNet's size",
    ),
    Setting(
        "component_format",
        "safetensors",
        "Format of exported components",
        "safetensors opens everywhere; pt is for old programs that know nothing else",
        choices=("safetensors", "pt"),
    ),
    Setting(
        "vae_format",
        "pt",
        "Format of autopruned VAEs",
        "pt is what old WebUIs expect in the VAE folder; every current one reads both",
        choices=("pt", "safetensors"),
    ),
    Setting(
        "sources",
        "done",
        "What autopruning does with a source",
        "done: moves it to Autoprune/Done; keep: leaves it where it is; delete: removes it for good once its result "
        "is verified",
        choices=("done", "keep", "delete"),
    ),
    Setting(
        "workers",
        0,
        "Number of workers",
        "threads that read and write models; 0 chooses by the number of processor cores",
        most=MOST_WORKERS,
    ),
)
"""Every setting, in the order of the settings page."""

_BY_KEY = {setting.key: setting for setting in SETTINGS}


def value_or(key: str, value: object, default: Value) -> Value:
    """``value`` where it is usable for the setting (or, for a key outside the table, of the default's type), else
    ``default``: what stands in a settings file may be anything."""
    setting = _BY_KEY.get(key)
    if type(default) is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # a slider's whole number came through JSON
    if type(value) is not type(default) or (setting is not None and not setting.allows(value)):
        return default
    assert isinstance(value, (str, bool, int))
    return value


def read_from(values: Mapping[str, object], key: str, default: Value) -> Value:
    """The setting of a mapping, the default where it is missing or unusable."""
    return value_or(key, values.get(key, default), default)
