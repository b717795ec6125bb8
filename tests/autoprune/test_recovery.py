"""What a killed run left is ended, by whichever path the folders are reached, and on whichever disk they lie."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from tests.autoprune import samples
from tests.autoprune.samples import kill_at, library, save

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def _overflowing() -> dict[str, np.ndarray]:
    """One tensor keeps its type, which is seen only when it is written."""
    arrays = samples.lora()
    key = next(key for key in arrays if "lora_up" in key)
    return {**arrays, key: np.full_like(arrays[key], 1e6)}


@needs_links
@pytest.mark.parametrize("sources", ["done", "delete"])
@pytest.mark.parametrize("linked", ["Lora", "Lora/sub"])
def test_a_result_in_a_linked_folder_is_not_taken_for_another_model(lib, tmp_path, linked, sources):
    (tmp_path / "big").mkdir()
    (lib.root / linked).parent.mkdir(exist_ok=True)
    (lib.root / linked).symlink_to(tmp_path / "big")
    save(lib.drop / "sub" / "a.safetensors", _overflowing())
    (lib.drop / "sub" / "a.png").write_text("picture")
    kill_at("follow", lib, sources=sources)
    (step,) = lib.run(sources=sources).steps
    assert (step.outcome, step.recovered) == ("written", True)
    assert sorted(path.name for path in (lib.folder("lora") / "sub").iterdir()) == ["a.png", "a.safetensors"]
    assert lib.files("Autoprune") == (["Autoprune/Done/sub/a.safetensors"] if sources == "done" else [])
    result = (lib.folder("lora") / "sub" / "a.safetensors").read_bytes()
    assert step.target_hashes["sha256"] == hashlib.sha256(result).hexdigest()


def test_a_result_that_went_after_the_kill_is_written_under_its_name_again(lib):
    """What is written now is not taken for what an earlier run had put in place."""
    save(lib.drop / "a.safetensors", _overflowing())
    kill_at("follow", lib)
    (lib.folder("lora") / "a.safetensors").unlink()
    (step,) = lib.run(sources="delete").steps
    assert (step.outcome, step.recovered) == ("written", False)
    assert lib.files() == ["Lora/a.safetensors"]
