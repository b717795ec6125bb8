"""Small pieces of HTML in which text from files can do nothing: what is not marked as HTML is escaped.

Control characters and direction marks are made visible before they are escaped, so that a name can neither
break out of its element nor pretend to be another one.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from lib_toolkit.reports.plain import printable


class Html(str):
    """A string that is HTML already. Only the functions of this module and literals should make one."""

    __slots__ = ()


EMPTY = Html("")


def text(value: str, limit: int = 2000) -> Html:
    """``value`` as HTML that shows it and nothing else, cut at ``limit`` characters."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(printable(value, limit), quote=True))


def tag(name: str, *children: str, **attributes: str | None) -> Html:
    """An element. Children and values of attributes are escaped unless they are Html.

    In attribute names ``_`` stands for ``-`` and a ``_`` at the end is dropped (``class_``, ``aria_label``); an
    attribute that is None is left out.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    shown = "".join(f' {key}="{text(value)}"' for key, value in given.items())
    return Html(f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Parts one after another, each escaped unless it is Html."""
    return Html("".join(text(part) for part in parts))


def bullets(items: Sequence[str], class_: str | None = None) -> Html:
    """A list; nothing at all when there are no items."""
    return tag("ul", *(tag("li", item) for item in items), class_=class_) if items else EMPTY


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset(), wide: bool = False
) -> Html:
    """A table with a head row; the columns in ``numbers`` are aligned as figures. It scrolls where it is too wide.

    Each cell knows the head of its column, so that a style sheet can put cells below each other on a narrow page.
    ``wide``: rows are there to be compared, and had better stay rows that are moved sideways.
    """

    def row(kind: str, cells: Sequence[str], labels: Sequence[str | None]) -> Html:
        classes = ["model-toolkit-number" if column in numbers else None for column in range(len(cells))]
        told = zip(cells, classes, labels, strict=True)
        return tag("tr", *(tag(kind, cell, class_=name, data_label=label) for cell, name, label in told))

    body = join(row("td", cells, head) for cells in rows)
    made = tag("table", tag("thead", row("th", head, [None] * len(head))), tag("tbody", body))
    words = f"Table: {', '.join(head)}"
    return sideways(words, made, class_="model-toolkit-scroll model-toolkit-wide" if wide else "model-toolkit-scroll")


def sideways(words: str, *children: str, class_: str) -> Html:
    """A place that can be moved sideways, by keyboard too, where it is wider than the page; ``words`` say what it is.
    A style sheet has to make it scroll."""
    return tag("div", *children, class_=class_, tabindex="0", role="region", aria_label=words)


def details(summary: str, *children: str) -> Html:
    """A part that opens on a click."""
    return tag("details", tag("summary", summary), *children, class_="model-toolkit-details")
