"""The verbs compare, compare-map, flatten and unflatten as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.cli.main import main
from tests.analysis.samples import demo, half, part, save

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    b = demo()
    for key in b:
        if key.startswith(UNET) and ".attn1." in key:
            b[key] = b[key] + np.float32(0.5)
    save(folder / "a.safetensors", demo())
    save(folder / "b.safetensors", b)
    save(folder / "h.safetensors", half(demo()))
    save(folder / "vae.safetensors", part(b, VAE))
    (folder / "broken.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{nonsense")
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_words_and_figures(models, capsys):
    status, out, err = run(capsys, "compare", models / "a.safetensors", models / "b.safetensors")
    assert (status, err) == (0, "")
    assert "only in layers of the kind attn1" in out
    lines = {line.split("  ")[0].strip(): line.split() for line in out.splitlines() if line[:1].isalpha()}
    assert lines["VAE"][1:5] == ["244", "0", "0", "0"]
    elements = sum(array.size for key, array in demo().items() if key.startswith(UNET) and ".attn1." in key)
    assert float(lines["UNet"][-3]) == pytest.approx(0.5 * elements**0.5, rel=1e-5)  # l2


def test_json_alone_on_stdout(models, capsys):
    status, out, err = run(capsys, "compare", models / "a.safetensors", models / "b.safetensors", "--json", "-")
    assert (status, err) == (0, "")
    table = json.loads(out)
    assert (table["schema"], table["a"]["name"], table["b"]["architecture"]) == (1, "a.safetensors", "SD-v1-Demo")
    assert table["metrics"] == ["l0", "l1", "l2", "cossim", "cosine"]


def test_every_file_at_once(models, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    names = {form: tmp_path / f"{form}.out" for form in ("json", "html", "png", "compat-json", "compat-png")}
    options = [part for form, path in names.items() for part in (f"--{form}", path)]
    pair = (models / "a.safetensors", models / "b.safetensors")
    assert run(capsys, "compare", *pair, *options)[0] == 0
    assert names["html"].read_text("utf-8").startswith("<!DOCTYPE html>")
    assert names["png"].read_bytes()[:4] == names["compat-png"].read_bytes()[:4] == b"\x89PNG"
    values = json.loads(names["compat-json"].read_text("utf-8"))["kv"]
    key = UNET + "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    assert values[key] == pytest.approx(0.5 * demo()[key].size ** 0.5, rel=1e-5)  # l2 unless told otherwise
    status, _, err = run(capsys, "compare", *pair, "--json", names["json"])
    assert status == 2
    assert "exists already" in err
    assert run(capsys, "compare", *pair, "--json", names["json"], "--force")[0] == 0


def test_a_published_file_is_gathered_again(models, tmp_path, capsys):
    pair = (models / "a.safetensors", models / "b.safetensors")
    path = tmp_path / "c.json"
    assert run(capsys, "compare", *pair, "--compat-json", path, "--metrics", "l1")[0] == 0
    status, out, err = run(capsys, "compare", "--from-json", path, "--metrics", "l1")
    elements = sum(array.size for key, array in demo().items() if key.startswith(UNET) and ".attn1." in key)
    assert (status, err) == (0, "")
    name, figure = out.splitlines()[0].split(" (")[0].split(": L1=")
    assert name == "attn1"
    assert float(figure) == pytest.approx(elements / 2, rel=1e-6)
    assert out.splitlines()[1].startswith("attn2: L1=0.0000 (80 tensors)")
    groups = json.loads(run(capsys, "compare", "--from-json", path, "--metrics", "l1", "--json", "-")[1])["groups"]
    assert groups[0]["figure"] == pytest.approx(elements / 2, rel=1e-6)
    _, printed, _ = run(capsys, "compare", "--from-json", path, "--compat-json", "-")
    assert printed == path.read_text("utf-8")


def test_at_lower_precision(models, tmp_path, capsys):
    pair = (models / "a.safetensors", models / "h.safetensors")
    table = json.loads(run(capsys, "compare", *pair, "--at-lower-precision", "--json", "-")[1])
    assert table["at_lower_precision"] is True
    said, page = run(capsys, "compare", *pair, "--at-lower-precision")[1], tmp_path / "page.html"
    assert "A and B hold the same values once A is cast to F16" in said
    assert run(capsys, "compare", *pair, "--at-lower-precision", "--html", page)[0] == 0
    assert "A and B hold the same values once A is cast to F16" in page.read_text("utf-8")
    assert table["total"]["changed"] == 0
    assert json.loads(run(capsys, "compare", *pair, "--json", "-")[1])["total"]["changed"] > 0


def test_a_third_model(models, tmp_path, capsys):
    b = demo()
    for key in b:
        if key.startswith(UNET) and ".attn1." in key:
            b[key] = b[key] + np.float32(0.125)  # a quarter of the way
    path = save(tmp_path / "m.safetensors", b)
    _, out, _ = run(capsys, "compare", models / "a.safetensors", models / "b.safetensors", "--third", path)
    assert "The UNet of m.safetensors is mixed of A's and B's: 25.0 % of B" in out


WRONG = {
    "a third at lower precision": (["{a}", "{b}", "--third", "{h}", "--at-lower-precision"], "leave one of them out"),
    "one model": (["{a}"], "two model files, 1 given"),
    "three models": (["{a}", "{b}", "{h}"], "two model files, 3 given"),
    "none": ([], "two model files, 0 given"),
    "not a metric": (["{a}", "{b}", "--metrics", "l3"], "'l3' is not a metric"),
    "two metrics in one": (["{a}", "{b}", "--compat-json", "-", "--metrics", "l1,l2"], "holds one metric"),
    "no published metric": (["{a}", "{b}", "--compat-json", "-", "--metrics", "cosine"], "holds one metric"),
    "a report and models": (["{a}", "--from-json", "{b}"], "leave out the two models"),
    "a report that is a model": (["--from-json", "{a}"], "a.safetensors"),
    "a page of a report": (["--from-json", "{a}", "--html", "x.html"], "no shapes"),
    "a printed page": (["{a}", "{b}", "--html", "-"], "--html is not printed"),
    "two printed": (["{a}", "{b}", "--json", "-", "--compat-json", "-"], "Only one of"),
    "one name twice": (["{a}", "{b}", "--json", "{t}/x", "--html", "{t}/x"], "same file name"),
    "the source": (["{a}", "{b}", "--json", "{a}", "--force"], "never overwritten"),
    "no such folder": (["{a}", "{b}", "--json", "{t}/no/x"], "does not exist"),
    "no such model": (["{a}", "{t}/none.safetensors"], "none.safetensors does not exist"),
    "broken": (["{a}", "{broken}"], "broken.safetensors"),
    "no workers": (["{a}", "{b}", "--workers", "0"], "1 at the least"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_one_sentence(models, tmp_path, capsys, what):
    arguments, words = WRONG[what]
    places = {name: models / f"{name}.safetensors" for name in ("a", "b", "h", "broken")}
    before = (models / "a.safetensors").read_bytes()
    status, out, err = run(capsys, "compare", *(a.format(**places, t=tmp_path) for a in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert (models / "a.safetensors").read_bytes() == before


def test_torch_and_matplotlib_are_not_imported(models):
    code = f"import sys; from lib_toolkit.cli.main import main; main(['compare', {str(models / 'a.safetensors')!r}, "
    code += f"{str(models / 'b.safetensors')!r}, '--json', '-']); "
    code += "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def a_map(folder, models, groups):
    path = folder / "map.json"
    table = [
        [name, [[[k, str(models / f) if f[:1] != "/" else f] for k, f in pair] for pair in pairs]]
        for name, pairs in groups
    ]
    path.write_text(json.dumps(table))
    return path


GROUPS = [
    ["whole", [[["a", "a.safetensors"], ["b", "b.safetensors"]], [["a", "a.safetensors"], ["h", "h.safetensors"]]]],
    ["vae", [[["full", "a.safetensors"], ["alone", "vae.safetensors"]]]],
]


def test_map_opens_each_file_once_and_is_taken_up_again(models, tmp_path, capsys, monkeypatch):
    from lib_toolkit.reports import compare_map

    opened = []
    keep = compare_map.open_model
    monkeypatch.setattr(compare_map, "open_model", lambda path: opened.append(path.name) or keep(path))
    path, out = a_map(tmp_path, models, GROUPS), tmp_path / "out"
    status, said, err = run(capsys, "compare-map", path, "--out", out, "--compat", "--metrics", "l2")
    assert (status, err) == (0, "")
    assert sorted(opened) == ["a.safetensors", "b.safetensors", "h.safetensors", "vae.safetensors"]
    stems = ["vae_full_alone", "whole_a_b", "whole_a_h"]
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert files == sorted(
        [f"{s}{e}" for s in stems for e in (".html", ".json")]
        + [str(Path("published", f"{s}.json")) for s in stems]
        + ["index.html", "index.json"]
    )
    assert said.splitlines()[-1].startswith("3 compared; ")
    index = json.loads((out / "index.json").read_text("utf-8"))
    assert [entry["name"] for entry in index["pairs"]] == ["whole_a_b", "whole_a_h", "vae_full_alone"]
    assert index["pairs"][2]["figures"] == {"l2": 0.0}
    alone = json.loads(run(capsys, "compare", models / "a.safetensors", models / "b.safetensors", "--json", "-")[1])
    listed = json.loads((out / "whole_a_b.json").read_text("utf-8"))
    assert listed["total"]["norm_difference"] == alone["total"]["norm_difference"] > 0
    page = (out / "index.html").read_text("utf-8")
    assert 'href="./whole_a_b.html"' in page
    opened.clear()
    (out / "whole_a_h.html").unlink()
    _, said, _ = run(capsys, "compare-map", path, "--out", out, "--compat", "--metrics", "l2")
    assert sorted(opened) == ["a.safetensors", "h.safetensors"]
    assert said.splitlines()[-1].startswith("1 compared, 2 known from before; ")


def test_map_goes_on_past_a_broken_file(models, tmp_path, capsys):
    groups = [
        ["g", [[["a", "a.safetensors"], ["x", "broken.safetensors"]], [["a", "a.safetensors"], ["b", "b.safetensors"]]]]
    ]
    status, said, _ = run(capsys, "compare-map", a_map(tmp_path, models, groups), "--out", tmp_path / "o", "--json")
    assert status == 0
    first, second = json.loads(said)["pairs"]
    assert "broken.safetensors" in first["error"]
    assert (second["error"], second["figures"]["l0"]) == ("", 80.0)


def test_map_refuses_only_the_pair_with_a_damaged_file(models, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    path = tmp_path / "d.ckpt"
    torch.save({key: torch.from_numpy(array) for key, array in part(demo(), VAE).items()}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3] = bytes(b ^ 0xFF for b in data[len(data) // 2 : len(data) // 2 + 3])
    path.write_bytes(data)
    groups = [["g", [[["v", "vae.safetensors"], ["d", str(path)]], [["a", "a.safetensors"], ["b", "b.safetensors"]]]]]
    status, said, _ = run(capsys, "compare-map", a_map(tmp_path, models, groups), "--out", tmp_path / "o", "--json")
    assert status == 0
    first, second = json.loads(said)["pairs"]
    assert "d.ckpt is damaged" in first["error"]
    assert (second["error"], second["figures"]["l0"]) == ("", 80.0)
    status, out, err = run(capsys, "compare", models / "vae.safetensors", path)
    assert (status, out) == (2, "")
    assert "d.ckpt is damaged" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no model map"),
        ("[]", "no model map"),
        ("nonsense", "not JSON"),
        ('[["g"]]', "group 1 is not a name and a list of pairs"),
        ('[["g", [[["a", "b"]]]]]', "pair 1 of group 'g' is not two names with paths"),
        ('[["g", [[["a", "x"], ["b", 3]]]]]', "pair 1 of group 'g' is not two names with paths"),
        ('[["g", [[["a", "none.ckpt"], ["b", "none2.ckpt"]]]]]', "pair 1 of group 'g': there is no file"),
        ('[["g", []]]', "no pair"),
        (
            '[["g", [[["a", "map.json"], ["b", "map.json"]], [["a", "map.json"], ["b", "map.json"]]]]]',
            "names of another pair",
        ),
        ('[["../g", [[["a", "map.json"], ["b", "map.json"]]]]]', "cannot be a file name"),
    ],
)
def test_wrong_maps(tmp_path, capsys, text, words):
    path = tmp_path / "map.json"
    path.write_text(text)
    status, out, err = run(capsys, "compare-map", path, "--out", tmp_path / "o")
    assert (status, out) == (2, "")
    assert words in err
    assert not (tmp_path / "o").exists()


def test_map_leaves_foreign_folders_alone(models, tmp_path, capsys):
    path = a_map(tmp_path, models, GROUPS)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("mine")
    status, _, err = run(capsys, "compare-map", path, "--out", tmp_path / "o")
    assert status == 2
    assert "choose an empty folder" in err


def test_flat_array_there_and_back(models, tmp_path, capsys):
    flat, again = tmp_path / "f.npy", tmp_path / "again.safetensors"
    status, out, err = run(capsys, "flatten", models / "h.safetensors", "-o", flat)
    count = sum(array.size for array in demo().values())
    assert (status, err) == (0, "")
    assert out.startswith(f"{count:,} numbers (F32) are in ")
    assert np.load(flat, mmap_mode="r").shape == (count,)
    assert run(capsys, "unflatten", flat, "-o", again)[0] == 0
    table = json.loads(run(capsys, "compare", models / "h.safetensors", again, "--json", "-")[1])
    assert table["verdicts"][0].startswith("A and B hold the same values")
    assert run(capsys, "unflatten", flat, "-o", again)[0] == 2
    assert run(capsys, "flatten", models / "h.safetensors", "-o", flat)[0] == 2
