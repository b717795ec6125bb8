"""Using the tab's behaviour without a browser: polling as the page does, and what the status line says."""

from __future__ import annotations

import html
import re
import time

from lib_toolkit.ui.workspace import Controls


def said(updates, part="status"):
    """The words of a part of the page."""
    return html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", updates[part]["value"]))).strip()


def settled(actions, answer):
    """Poll as the page does until nothing runs; all answers together."""
    key, updates = answer
    merged = {part: dict(properties) for part, properties in updates.items()}
    deadline = time.monotonic() + 20
    while "data-model-toolkit-step" in merged.get("progress", {}).get("value", "") and time.monotonic() < deadline:
        time.sleep(0.05)
        key, updates = actions.poll(key)
        for part, properties in updates.items():
            merged.setdefault(part, {}).update(properties)
    return key, merged


def loaded(actions, name, controls=Controls()):  # noqa: B008
    key, updates = settled(actions, actions.load(None, name, controls))
    assert "nothing is changed on disk yet" in said(updates)
    return key, updates


def files(models):
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if path.is_file())
