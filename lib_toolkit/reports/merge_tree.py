"""The recipe of a merged model as a tree: what was merged with what, as far as the metadata tells.

Format: ``sd_merge_recipe`` is JSON that names the parents by sha256 (``primary_model_hash`` …); ``sd_merge_models``
is JSON from sha256 to ``{name, legacy_hash, sd_merge_recipe}`` of every ancestor that the tool knew of. Both come
from the AUTOMATIC1111 WebUI (modules/extras.py); other tools write fields of their own, leave ancestors out, or
nest one table in the other. Nothing here is trusted: ancestors may be missing, repeated or their own ancestors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Json: TypeAlias = "dict[str, object]"

RECIPE, MODELS = "sd_merge_recipe", "sd_merge_models"

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_ROLES: Mapping[str, str] = {"primary": "A", "secondary": "B", "tertiary": "C"}
_METHODS = ("interp_method", "merge_method", "merge_mode", "mode", "calcmode")
_WEIGHTS = ("multiplier", "alpha", "beta", "base_alpha", "base_beta", "alpha_info")
_DEPTH, _NODES, _NESTED = 40, 500, 8
_TEXT = 300

STATES: Mapping[str, str] = {
    "described": "",
    "hole": "the file tells nothing more of it",
    "repeated": "shown above",
    "cycle": "its own ancestor: the recipe goes round in a circle",
    "cut": "the recipe goes on; not shown further",
    "unreadable": "the recipe cannot be read",
}
"""What can be said of an ancestor beside its recipe."""


@dataclass(frozen=True)
class Ancestor:
    """One model of a merge: what the recipe calls it, and what it was merged from itself.

    ``role`` is its place in the recipe (A, B, C or the field's name), empty for the file itself; ``hash`` the
    sha256; ``recipe`` the facts of its own merge as text; ``state`` a key of STATES.
    """

    role: str
    name: str | None
    hash: str | None = None
    legacy_hash: str | None = None
    recipe: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[Ancestor, ...] = ()
    state: str = "described"

    @property
    def title(self) -> str:
        """The name, or what stands for it."""
        return self.name or (f"model {self.hash[:10]}" if self.hash else "unnamed model")

    @property
    def method(self) -> str:
        """How the parents were put together, in a few words; empty where nothing tells."""
        method = next((self.recipe[key] for key in _METHODS if key in self.recipe), "")
        weights = [f"{key} {self.recipe[key]}" for key in _WEIGHTS if key in self.recipe]
        return ", ".join(filter(None, (method, *weights)))

    @property
    def remark(self) -> str:
        """What is odd about it, in words."""
        return STATES[self.state]

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Ancestor]]:
        """This model and all below it, each with its depth, in the order of reading."""
        yield depth, self
        for parent in self.parents:
            yield from parent.walk(depth + 1)


def merge_tree(metadata: Mapping[str, str], name: str) -> Ancestor | None:
    """The merge that the metadata of the file ``name`` tells of; None where it tells of none."""
    if RECIPE not in metadata and MODELS not in metadata:
        return None
    models = _Models(_parsed(metadata.get(MODELS)))
    recipe = _parsed(metadata.get(RECIPE))
    if recipe is None and "type" in models.top:
        recipe = models.top  # seen: a recipe in the place of the table
    if recipe is not None:
        return models.ancestor("", name, None, recipe)
    if models.table:
        return Ancestor("", name, parents=models.parents([("part", digest) for digest in models.table], ()))
    return Ancestor("", name, state="unreadable")


def _parsed(value: object) -> Json | None:
    """A JSON object, given as such or as text; None for everything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


class _Models:
    """The table of ancestors, and how much of the tree has been built from it."""

    def __init__(self, top: Json | None) -> None:
        self.top = top or {}
        self.table = dict(_entries(self.top))
        self._built: set[str] = set()
        self._count = 0

    def ancestor(
        self, role: str, name: str | None, digest: str | None, recipe: Json, path: tuple[str, ...] = ()
    ) -> Ancestor:
        """A model with a recipe; the parents that the recipe names become ancestors in turn."""
        parents = self.parents(_parents(recipe, self.table), path)
        legacy = _text(self.table[digest].get("legacy_hash")) if digest in self.table else None
        return Ancestor(role, name, digest, legacy, _facts(recipe), parents)

    def parents(self, named: list[tuple[str, str]], path: tuple[str, ...]) -> tuple[Ancestor, ...]:
        """The ancestors with these roles and hashes, as many as the tree still has room for."""
        found = []
        for role, digest in named:
            if self._count >= _NODES:
                break
            found.append(self._parent(role, digest, path))
        return tuple(found)

    def _parent(self, role: str, digest: str, path: tuple[str, ...]) -> Ancestor:
        entry = self.table.get(digest)
        name = _text(entry.get("name")) if entry else None
        legacy = _text(entry.get("legacy_hash")) if entry else None
        state = self._state(digest, path)
        self._count += 1
        recipe = _parsed(entry.get(RECIPE)) if entry else None
        if state == "described" and recipe is not None:
            self._built.add(digest)
            return self.ancestor(role, name, digest, recipe, (*path, digest))
        return Ancestor(role, name, digest, legacy, state=state)

    def _state(self, digest: str, path: tuple[str, ...]) -> str:
        if digest in path:
            return "cycle"
        if digest in self._built:
            return "repeated"
        if len(path) >= _DEPTH:
            return "cut"
        return "described" if digest in self.table else "hole"


def _entries(top: Json, nested: int = 0) -> Iterator[tuple[str, Json]]:
    """Ancestors by hash; a table within the table, as some tools write it, counts too."""
    for digest, value in top.items():
        entry = _parsed(value)
        if entry is None:
            continue
        if digest == MODELS and nested < _NESTED:
            yield from _entries(entry, nested + 1)
        elif digest != RECIPE:
            yield digest, entry


def _parents(recipe: Json, table: Mapping[str, Json]) -> list[tuple[str, str]]:
    """(role, hash) of every field that names a model: a sha256, a hash of the table, or several with commas."""
    found = []
    for key, value in recipe.items():
        if isinstance(value, str) and key not in (RECIPE, MODELS):
            digests = [part.strip() for part in value.split(",")]
            if all(_HEX.fullmatch(digest) or digest in table for digest in digests):
                found += [(_role(key), digest) for digest in digests if digest]
    return found


def _role(key: str) -> str:
    stem = key.removesuffix("_hash").removesuffix("_model")
    return _ROLES.get(stem, stem.replace("_", " "))


def _facts(recipe: Json) -> dict[str, str]:
    """The fields that tell how, as text; hashes of parents, and what is empty or false, are left out."""
    facts = {}
    for key, value in recipe.items():
        named = isinstance(value, str) and all(_HEX.fullmatch(part.strip()) for part in value.split(","))
        empty = value is None or value is False or value in ("", [], {})
        if not empty and not named and key not in (RECIPE, MODELS):
            facts[_cut(key)] = _cut(value if isinstance(value, str) else json.dumps(value))
    return facts


def _text(value: object) -> str | None:
    return _cut(value) if isinstance(value, str) and value else None


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
