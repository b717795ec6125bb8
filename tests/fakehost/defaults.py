"""The host's file of start values (``ui-config.json``): what labelled components of tabs show first.

As in ``modules/ui_loadsave.py``: the first start writes down what components show, and each later start shows what is
written there, unless a component says ``do_not_save_to_config``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

NAME = "ui-config.json"
_VALUED = (gr.Slider, gr.Radio, gr.Checkbox, gr.Textbox, gr.Number, gr.Dropdown)


class StartValues:
    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.values: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def add_block(self, block: Any, path: str) -> None:
        if hasattr(block, "children"):
            for child in block.children:
                self.add_block(child, path)
        elif getattr(block, "label", None) is not None and type(block) in _VALUED:
            self._add(block, f"{path}/{block.label}/value")

    def _add(self, component: Any, key: str) -> None:
        if getattr(component, "do_not_save_to_config", False):
            return
        if key in self.values:
            component.value = self.values[key]
        else:
            self.values[key] = component.value

    def write(self) -> None:
        self.path.write_text(json.dumps(self.values, indent=4), "utf-8")
