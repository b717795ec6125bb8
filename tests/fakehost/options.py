"""``modules.options``: what extensions declare in ``on_ui_settings``, kept in config.json as plain JSON."""

from __future__ import annotations

import json
import os
from types import ModuleType
from typing import Any


class OptionInfo:
    def __init__(
        self,
        default=None,
        label="",
        component=None,
        component_args=None,
        onchange=None,
        section=None,
        refresh=None,
        comment_before="",
        comment_after="",
        infotext=None,
        restrict_api=False,
        category_id=None,
    ):
        self.default, self.label = default, label
        self.component, self.component_args = component, component_args
        self.onchange, self.section, self.refresh = onchange, section, refresh
        self.comment_before, self.comment_after = comment_before, comment_after
        self.infotext, self.restrict_api, self.category_id = infotext, restrict_api, category_id
        self.do_not_save = False

    def info(self, info):
        self.comment_after += f"<span class='info'>({info})</span>"
        return self

    def link(self, label, url):
        self.comment_before += f"[<a href='{url}' target='_blank'>{label}</a>]"
        return self

    def html(self, html):
        self.comment_after += html
        return self

    def needs_restart(self):
        return self.html(" <span class='info'>(requires restart)</span>")

    def needs_reload_ui(self):
        return self.html(" <span class='info'>(requires Reload UI)</span>")


class Options:
    """Attributes are options: those of the file, then those declared; any other is an AttributeError."""

    def __init__(self, data_labels, restricted_opts):
        object.__setattr__(self, "data_labels", data_labels)
        object.__setattr__(self, "restricted_opts", restricted_opts)
        object.__setattr__(self, "data", {key: info.default for key, info in data_labels.items()})
        object.__setattr__(self, "frozen", False)

    def __getattr__(self, item):
        if item in self.data:
            return self.data[item]
        if item in self.data_labels:
            return self.data_labels[item].default
        raise AttributeError(item)

    def __setattr__(self, key, value):
        assert not self.frozen, "changing settings is disabled"
        self.data[key] = value

    def set(self, key, value, is_api=False, run_callbacks=True):
        if self.data.get(key) == value:
            return False
        try:
            setattr(self, key, value)
        except RuntimeError:
            return False
        if run_callbacks and self.data_labels[key].onchange is not None:
            self.data_labels[key].onchange()
        return True

    def add_option(self, key, info):
        self.data_labels[key] = info
        if key not in self.data and not info.do_not_save:
            self.data[key] = info.default

    def same_type(self, x, y):
        if x is None or y is None:
            return True
        kinds = [float if type(value) is int else type(value) for value in (x, y)]
        return kinds[0] is kinds[1]

    def load(self, filename):
        if os.path.exists(filename):
            with open(filename, encoding="utf8") as file:
                object.__setattr__(self, "data", json.load(file))

    def save(self, filename):
        assert not self.frozen, "saving settings is disabled"
        with open(filename, "w", encoding="utf8") as file:
            json.dump(self.data, file, indent=4, ensure_ascii=False)

    def dumpjson(self):
        return json.dumps({key: self.data.get(key, info.default) for key, info in self.data_labels.items()})


def make() -> ModuleType:
    module: Any = ModuleType("modules.options")
    module.OptionInfo, module.Options = OptionInfo, Options
    return module
