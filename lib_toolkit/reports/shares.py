"""What a file's bytes are made of, before and after a plan: figures, and the bar that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib_toolkit.architectures.junk import EMA
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model, count_bytes
from lib_toolkit.plan import Plan
from lib_toolkit.reports.html import EMPTY, Html, join, tag
from lib_toolkit.reports.numbers import human_bytes
from lib_toolkit.tensors import nbytes

ROLES: Mapping[str, str] = {
    "unet": "UNet",
    "text": "Text encoder",
    "vae": "VAE",
    "lora": "LoRA",
    "other": "Other parts",
    "ema": "EMA copy",
    "junk": "Training leftovers",
    "unknown": "Unknown",
    "frame": "File structure",
}
"""What bytes can be, in the order of the bar, with the words of the legend."""

_BY_KIND = {"unet": "unet", "text_encoder": "text", "vae": "vae", "lora": "lora"}


@dataclass(frozen=True, slots=True)
class Share:
    """One role's bytes in the source (``before``) and in the result of a plan (``after``)."""

    role: str
    tensors: int
    before: int
    after: int

    @property
    def title(self) -> str:
        return ROLES[self.role]


def roles_of(found: Identification) -> dict[str, str]:
    """The role of each key of the state dict that identification has placed; the rest are other parts."""
    roles: dict[str, str] = {}
    for match in found.components:
        role = _BY_KIND.get(match.component.kind, "other")
        for key in match.keys.values():
            roles.setdefault(key, role)
    for left in found.leftovers.removable:
        roles[left.key] = "ema" if left.reason == EMA else "junk"
    for left in found.leftovers.unknown:
        roles[left.key] = "unknown"
    return roles


def shares_of(model: Model, found: Identification, plan: Plan, size: int, in_memory: bool = False) -> tuple[Share, ...]:
    """The bytes of the source and of the plan by role; ``size`` is that of the plan's file. Sums are exact.

    ``in_memory``: the source is no file as it stands, but one with edits; its structure counts as that of the result.

    Tensors outside of the state dict in use count as training leftovers; what is not tensor data (header,
    pickle, padding, and in pickles whatever no tensor uses) is the file structure. Tied tensors of a pickle
    can make that negative, it then counts as nothing.
    """
    roles = roles_of(found)
    count = dict.fromkeys(ROLES, 0)
    before = dict.fromkeys(ROLES, 0)
    after = dict.fromkeys(ROLES, 0)
    for key, tensor in model.tensors.items():
        role = roles.get(key, "other")
        count[role] += 1
        before[role] += nbytes(tensor)
    count["junk"] += len(model.outside)
    before["junk"] += count_bytes(model.outside.values())
    renamed = {new: old for old, new in found.renames.items()}
    for key, tensor in plan.tensors.items():
        after[roles.get(key) or roles.get(renamed.get(key, key), "other")] += nbytes(tensor)
    after["frame"] = max(0, size - sum(after.values()))
    before["frame"] = after["frame"] if in_memory else max(0, model.origin.size - sum(before.values()))
    return tuple(Share(role, count[role], before[role], after[role]) for role in ROLES if before[role] or after[role])


def bar(shares: tuple[Share, ...]) -> Html:
    """Two bars on one scale, the source above the result, and a legend with the figures."""
    before, after = sum(s.before for s in shares), sum(s.after for s in shares)
    if all(share.role == "frame" for share in shares):
        return EMPTY
    scale = max(before, after, 1)
    rows = [
        _row("Now", {s.role: s.before for s in shares}, before, scale),
        _row("After", {s.role: s.after for s in shares}, after, scale),
    ]
    return tag("div", *rows, _legend(shares, before), class_="model-toolkit-shares")


def _row(title: str, amounts: Mapping[str, int], total: int, scale: int) -> Html:
    pieces = [_piece(role, amount, scale) for role, amount in amounts.items() if amount]
    if total < scale:
        pieces.append(_piece("gone", scale - total, scale))
    told = ", ".join(f"{ROLES[role]} {human_bytes(amount)}" for role, amount in amounts.items() if amount)
    strip = tag("div", *pieces, class_="model-toolkit-bar", role="img", aria_label=f"{title}: {told}")
    return tag(
        "div",
        tag("span", title, class_="model-toolkit-bar-title"),
        strip,
        tag("span", human_bytes(total), class_="model-toolkit-bar-total"),
        class_="model-toolkit-bar-row",
    )


def _piece(role: str, amount: int, scale: int) -> Html:
    title = "less than now" if role == "gone" else ROLES[role]
    return tag(
        "span",
        class_=f"model-toolkit-piece model-toolkit-role-{role}",
        style=f"width:{100 * amount / scale:.3f}%",
        title=f"{title}: {human_bytes(amount)}",
    )


def _legend(shares: tuple[Share, ...], total: int) -> Html:
    items = []
    for share in shares:
        swatch = tag("span", class_=f"model-toolkit-swatch model-toolkit-role-{share.role}", aria_hidden="true")
        figure = human_bytes(share.before)
        if share.after != share.before:
            figure += f" → {human_bytes(share.after)}" if share.after else " → left out"
        percent = f"{100 * share.before / total:.1f} %" if total else ""
        items.append(
            tag(
                "li",
                swatch,
                tag("span", share.title, class_="model-toolkit-legend-title"),
                tag("span", figure, class_="model-toolkit-legend-figure", title=percent),
            )
        )
    return tag("ul", join(items), class_="model-toolkit-legend") if items else EMPTY
