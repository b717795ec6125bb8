"""Who clicked, as far as Gradio's request tells it."""

from __future__ import annotations

import gradio as gr

from lib_toolkit.hosts.host import Visitor


def visitor_of(request: gr.Request | None) -> Visitor:
    """The visitor behind a request; without one nothing is known, so that a host that cares will refuse."""
    if request is None:
        return Visitor("", "", False)
    client = getattr(request, "client", None)
    headers = getattr(request, "headers", None) or {}
    return Visitor.of(getattr(client, "host", None), dict(headers.items()))
