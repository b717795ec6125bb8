"""The usual edits in the usual order, as every door offers them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_toolkit.edits.precision import set_precision
from lib_toolkit.edits.prune import prune
from lib_toolkit.edits.repair import fix_position_ids, rename_nai
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.plan import Plan, plan_of


@dataclass(frozen=True)
class Wishes:
    """What a user may choose. ``precision`` is a name in ``edits.precision.PRECISIONS``."""

    precision: str = "auto"
    keep_ema: bool = False
    fix_clip: bool = False
    drop_unknown: bool = False


def plan_prune(model: Model, found: Identification, wishes: Wishes) -> Plan:
    """A clean copy: junk left out, old names repaired, weights at the wished precision."""
    return prune_plan(plan_of(model), found, wishes)


def prune_plan(plan: Plan, found: Identification, wishes: Wishes) -> Plan:
    """As ``plan_prune``, for a plan that other edits have begun; ``found`` is what ``plan.as_model()`` is now."""
    plan = prune(plan, found, wishes.keep_ema, wishes.drop_unknown)
    return _repaired(rename_nai(plan, found), found, wishes)


def plan_convert(model: Model, found: Identification, wishes: Wishes) -> Plan:
    """A copy at another precision or in another format that leaves nothing out, unless the wishes say so."""
    plan = plan_of(model)
    if wishes.drop_unknown:
        plan = prune(plan, _only_unknown(found), keep_ema=True, drop_unknown=True)
    return _repaired(plan, found, wishes)


def _repaired(plan: Plan, found: Identification, wishes: Wishes) -> Plan:
    if wishes.fix_clip:
        plan = fix_position_ids(plan, found)
    return set_precision(plan, found, wishes.precision)


def _only_unknown(found: Identification) -> Identification:
    return replace(found, leftovers=replace(found.leftovers, removable=()))
