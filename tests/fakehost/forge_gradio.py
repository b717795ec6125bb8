"""Forge's changes to Gradio 4 (``modules/gradio_extensions.py``): they hold for the whole process.

Components drop keywords that they do not know, with a warning; events of components are wrapped in objects that
take anything and map ``_js``; layouts refuse unknown keywords as they do without Forge.
"""

from __future__ import annotations

import inspect
import warnings
from functools import wraps
from typing import Any

import gradio as gr


class EventWrapper:
    def __init__(self, replaced_event: Any) -> None:
        self.replaced_event = replaced_event
        for name in ("has_trigger", "event_name", "callback"):
            setattr(self, name, getattr(replaced_event, name, None))

    def __call__(self, *args, **kwargs):
        if "_js" in kwargs:
            kwargs["js"] = kwargs.pop("_js")
        return self.replaced_event(*args, **kwargs)


def install() -> None:
    """Change every component that has events."""
    for name in {*gr.components.__all__, *gr.layouts.__all__}:
        component = getattr(gr, name, None)
        if getattr(component, "EVENTS", None):
            _change(component)
    gr.Box = gr.Group


def _change(component: Any) -> None:
    original = component.__init__

    @wraps(original)
    def changed(self, *args, tooltip=None, source=None, **kwargs):
        known = inspect.signature(original).parameters
        for key in [key for key in kwargs if key not in known]:
            warnings.warn(f"unexpected argument for {component.__name__}: {key}", stacklevel=2)
            del kwargs[key]
        original(self, *args, **kwargs)
        for event in self.EVENTS:
            setattr(self, str(event), EventWrapper(getattr(self, str(event))))

    component.__init__ = changed
    component.update = gr.update
