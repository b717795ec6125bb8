"""``modules.script_callbacks``: lists of callbacks, called in order; a fault in one is printed and skipped."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from types import ModuleType
from typing import Any

EVENTS = ("app_started", "before_reload", "model_loaded", "ui_tabs", "ui_settings", "script_unloaded", "before_ui")


@dataclass
class ScriptCallback:
    script: str
    callback: Any
    name: str = "unnamed"


def make(named: bool) -> ModuleType:
    """The module; with ``named`` its functions take ``name=``."""
    module = ModuleType("modules.script_callbacks")
    lists: dict[str, list[ScriptCallback]] = {f"callbacks_{event}": [] for event in EVENTS}
    module.callback_map = lists
    module.ScriptCallback = ScriptCallback
    for event in EVENTS:
        setattr(module, f"on_{event}", _registering(lists[f"callbacks_{event}"], event, named))

    def clear_callbacks():
        for known in lists.values():
            known.clear()

    def remove_callbacks_for_function(callback_func):
        for known in lists.values():
            known[:] = [one for one in known if one.callback != callback_func]

    module.clear_callbacks = clear_callbacks
    module.remove_callbacks_for_function = remove_callbacks_for_function
    _add_calls(module, lists)
    return module


def _registering(known: list[ScriptCallback], event: str, named: bool) -> Any:
    def add(callback, name):
        file = sys._getframe(2).f_code.co_filename
        known.append(ScriptCallback(file, callback, f"{file}/{event}" + (f"/{name}" if name else "")))

    if named:

        def register(callback, *, name=None):
            add(callback, name)

    else:

        def register(callback):
            add(callback, None)

    return register


def _add_calls(module: ModuleType, lists: dict[str, list[ScriptCallback]]) -> None:
    def call(event, *arguments):
        results = []
        for one in list(lists[f"callbacks_{event}"]):
            try:
                results.append(one.callback(*arguments))
            except Exception:
                print(f"*** Error executing callback {event} for {one.script}", file=sys.stderr)
                traceback.print_exc()
        return results

    def app_started_callback(demo, app):
        call("app_started", demo, app)

    def app_reload_callback():
        call("before_reload")

    def ui_tabs_callback():
        return [tab for tabs in call("ui_tabs") for tab in tabs or []]

    def ui_settings_callback():
        call("ui_settings")

    def script_unloaded_callback():
        call("script_unloaded")

    def before_ui_callback():
        call("before_ui")

    for function in (
        *(app_started_callback, app_reload_callback, ui_tabs_callback),
        *(ui_settings_callback, script_unloaded_callback, before_ui_callback),
    ):
        setattr(module, function.__name__, function)
