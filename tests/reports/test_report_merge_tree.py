"""Merge recipes as trees: what the metadata says, with holes, circles and nonsense; and the toolkit's own history."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from lib_toolkit.plan import PROVENANCE
from lib_toolkit.reports.merge_tree import merge_tree
from lib_toolkit.reports.provenance import history
from tests.reports.report_cases import HISTORY, HOSTILE, MERGE, A, B, C, D


def outline(tree):
    return [(depth, one.role, one.name, one.hash, one.state) for depth, one in tree.walk()]


def merged(recipe, models=None, name="x.safetensors"):
    metadata = {"sd_merge_recipe": recipe if isinstance(recipe, str) else json.dumps(recipe)}
    if models is not None:
        metadata["sd_merge_models"] = models if isinstance(models, str) else json.dumps(models)
    return merge_tree(metadata, name)


def test_no_merge_no_tree():
    assert merge_tree({"format": "pt"}, "x") is None


def test_webui_recipe_with_a_hole_and_a_circle():
    tree = merge_tree(MERGE, "mine.safetensors")
    assert outline(tree) == [
        (0, "", "mine.safetensors", None, "described"),
        (1, "A", "first.safetensors", A, "described"),
        (1, "B", "second.safetensors", B, "described"),
        (2, "A", None, C, "hole"),
        (2, "B", "second.safetensors", B, "cycle"),
    ]
    assert tree.method == "Weighted sum, multiplier 0.35"
    assert tree.recipe["save_as_half"] == "true"
    assert not {"primary_model_hash", "tertiary_model_hash"} & tree.recipe.keys()
    assert [one.legacy_hash for one in tree.parents] == ["0a0a0a0a", "0b0b0b0b"]


def test_a_recipe_as_text_within_the_table():
    inner = json.dumps({"type": "SDNext", "primary_model_hash": C, "merge_mode": "add", "alpha": 0.5, "beta": 0})
    tree = merged({"primary_model_hash": A}, {A: {"name": "a", "sd_merge_recipe": inner}, C: {"name": "c"}})
    assert outline(tree)[1:] == [(1, "A", "a", A, "described"), (2, "A", "c", C, "described")]
    # beta is zero, which is a weight like any other
    assert tree.parents[0].method == "add, alpha 0.5, beta 0"


def test_other_tools_fields_several_hashes_and_nested_tables():
    models = {"sd_merge_models": {A: {"name": "a"}, "sd_merge_models": {B: {"name": "b"}}}, "sd_merge_recipe": {"x": 1}}
    tree = merged({"type": "pluslora", "checkpoint_hash": C, "lora_hash": f"{A},{B}"}, models)
    assert outline(tree)[1:] == [
        (1, "checkpoint", None, C, "hole"),
        (1, "lora", "a", A, "described"),
        (1, "lora", "b", B, "described"),
    ]
    instead = merge_tree({"sd_merge_models": json.dumps({"type": "x", "lora_hash": D})}, "x")
    assert [one.hash for one in instead.parents] == [D]


def test_shared_ancestors_are_shown_once():
    """Each generation has the one before it as both parents: drawn in full that would be 2 to the 60 models."""
    names = [f"{n:064x}" for n in range(60)]
    models = {
        one: {"name": str(n), "sd_merge_recipe": {"primary_model_hash": below, "secondary_model_hash": below}}
        for n, (one, below) in enumerate(itertools.pairwise(names))
    }
    start = time.monotonic()
    tree = merged({"primary_model_hash": names[0]}, models)
    nodes = list(tree.walk())
    assert time.monotonic() - start < 2
    assert len(nodes) < 200
    assert {"repeated", "cut"} <= {one.state for _, one in nodes}
    assert max(depth for depth, _ in nodes) <= 41


def test_a_wide_table_is_bounded():
    models = {f"{n:064x}": {"name": str(n)} for n in range(5000)}
    tree = merge_tree({"sd_merge_models": json.dumps(models)}, "x")
    assert 100 < len(list(tree.walk())) <= 501
    assert {one.role for one in tree.parents} == {"part"}


@pytest.mark.parametrize(
    "recipe",
    ["", "{", "null", "[]", "3", '"text"', "[" * 100_000, '{"a": ' * 5000, "9" * 10_000, HOSTILE],
    ids=range(10),
)
def test_nonsense_is_no_recipe(recipe):
    tree = merged(recipe, recipe)
    assert (tree.state, tree.parents, tree.name) == ("unreadable", (), "x.safetensors")
    assert tree.remark == "the recipe cannot be read"


@pytest.mark.parametrize("entry", [None, 3, [], {"name": 3, "legacy_hash": [], "sd_merge_recipe": 7}, "text", {}])
def test_nonsense_in_the_table(entry):
    tree = merged({"primary_model_hash": A, "multiplier": [1, {"a": 2}], "custom_name": HOSTILE}, {A: entry, B: 5})
    (parent,) = tree.parents
    assert (parent.name, parent.recipe, parent.parents) == (None, {}, ())
    assert parent.state == ("described" if isinstance(entry, dict) else "hole")
    assert parent.title == "model aaaaaaaaaa"
    assert tree.recipe["multiplier"] == '[1, {"a": 2}]'


def test_long_texts_are_cut():
    tree = merged({"custom_name": "x" * 100_000, "y" * 100_000: 1})
    assert max(len(text) for pair in tree.recipe.items() for text in pair) <= 301


def test_history_of_the_toolkit():
    (step,) = history(HISTORY)
    assert (step.tool, step.version, step.operations) == ("model-toolkit", "0.0.1", ("prune", "precision auto"))
    assert (step.source.name, step.source.size) == ("big.ckpt", 7_703_807_346)
    # the field of blanks stands for a hash that was never taken
    assert step.source.hashes == {"sha256": D, "autov2": D[:10]}
    assert step.sentence() == (
        "model-toolkit 0.0.1 wrote it from big.ckpt (7.70 GB), with parts of better.vae.pt (822 MB): "
        "prune, precision auto."
    )


@pytest.mark.parametrize("text", ["", "{}", "null", "[1, null, []]", "[" * 100_000, "[{"])
def test_history_that_is_none(text):
    assert history({PROVENANCE: text}) == ()


def test_history_of_nonsense():
    entry = {"tool": 3, "version": None, "source": {"name": [], "size": -1, "sha256": 5}, "operations": [1], "parts": 2}
    (step,) = history({PROVENANCE: json.dumps([entry])})
    assert step.sentence() == "A tool without a name wrote it from a file without a name: ?."
    (huge,) = history({PROVENANCE: json.dumps([{"source": {"size": 10**400}}])})
    assert huge.source.size is None
