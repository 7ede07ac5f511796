"""`to_hf --with_code`: what it writes, that it loads elsewhere, and that without it nothing changes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import exports
import torch_model
from anyorder_jax import decode
from conversion.__main__ import main
from saved_runs import MODEL, save_run, write_model

ROOT = Path(__file__).parents[1]
CHECK = ROOT / "benchmarks" / "export_elsewhere.py"


def to_hf(run, output, *more, layout="split"):
    return main(["to_hf", "--checkpoint", str(run), "--output_path", str(output), "--layout", layout, *more])


def names(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model directory with code and a card of its own, and a run that started from it."""
    folder = tmp_path_factory.mktemp("published")
    model = write_model(folder / "model")
    config = MODEL | {"auto_map": {"AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM"}}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "README.md").write_text("---\nlicense: apache-2.0\nbase_model:\n- a/b\nsecret: 1\n---\nOf the base.\n")
    return model, save_run(folder / "run", model)


def test_code_ids_and_a_card_come_along_and_nothing_without_the_flag(published, tmp_path, capsys):
    model, run = published
    assert to_hf(run, tmp_path / "plain") == 0
    assert json.loads((tmp_path / "plain" / "config.json").read_text()) == json.loads(
        (model / "config.json").read_text()
    )
    assert "modeling_llada2.py" not in names(tmp_path / "plain")
    assert (tmp_path / "plain" / "README.md").read_bytes() == (model / "README.md").read_bytes()

    capsys.readouterr()
    assert to_hf(run, tmp_path / "ours", "--with_code", "--dry_run") == 0
    assert "modeling_llada2.py" in capsys.readouterr().out and not (tmp_path / "ours").exists()
    assert to_hf(run, tmp_path / "ours", "--with_code") == 0
    told = capsys.readouterr().err
    assert "modeling_llada2_moe.py of the model is left out" in told and "kept as README_base.md" in told
    before, after = (json.loads((tmp_path / d / "config.json").read_text()) for d in ("plain", "ours"))
    assert after["auto_map"]["AutoModelForCausalLM"] == "modeling_llada2.LLaDA2MoeModelLM"
    assert (after["mask_token_id"], after["eos_token_id"]) == (405, 401)  # of the tokenizer
    assert after == before | {key: after[key] for key in ("auto_map", "mask_token_id", "eos_token_id")}
    expected = names(tmp_path / "plain") - {"modeling_llada2_moe.py"} | {"modeling_llada2.py", "README_base.md"}
    assert names(tmp_path / "ours") == expected
    assert (tmp_path / "ours" / "README_base.md").read_bytes() == (model / "README.md").read_bytes()
    assert (tmp_path / "ours" / "modeling_llada2.py").read_text() == (
        torch_model.CODE / "modeling_llada2.py"
    ).read_text()
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()

    assert main(["upload", str(tmp_path / "ours"), "--repo=a/b", "--dry_run"]) == 0
    run_of_it = save_run(tmp_path / "second", tmp_path / "ours")  # and its export: nobody's card is lost
    assert to_hf(run_of_it, tmp_path / "again", "--with_code") == 0
    assert (tmp_path / "again" / "README_base_2.md").read_bytes() == (tmp_path / "ours" / "README.md").read_bytes()
    assert (tmp_path / "again" / "README_base.md").read_bytes() == (model / "README.md").read_bytes()


def test_the_card_tells_the_recipe_the_figures_and_no_folders(published, tmp_path):
    model, run = published
    (run / "metrics").mkdir()
    lines = [{"step": 4, "loss": 7.5}, {"step": 5, "loss": 1.25, "nll/action": 0.5, "tokens_per_second": 9}]
    (run / "metrics" / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "report").mkdir()
    estimate = {"value": 0.8125, "low": 0.75, "high": 0.875, "count": 90, "episodes": 30}
    row = {"question": "decision", "role": "action", "measure": "token_accuracy", "predictor": "model", **estimate}
    other = row | {"predictor": "unigram", "value": 0.111}
    for step, is_told in ((5, True), (6, False)):
        report = {"about": {"step": step}, "summary": [row, other]}
        (run / "report" / "report.json").write_text(json.dumps(report))
        assert to_hf(run, tmp_path / f"out{step}", "--with_code") == 0
        card = (tmp_path / f"out{step}" / "README.md").read_text(encoding="utf-8")
        assert ("0.8125" in card) == is_told and "0.111" not in card
    assert card.startswith("---\nlibrary_name: transformers\n")
    head = card.split("---\n")[1]
    assert "license: apache-2.0\nbase_model:\n- a/b\ntags:" in head and "secret" not in head
    assert "1.25" in card and "0.5" in card and "7.5" not in card and "tokens_per_second" not in card
    assert "`model.path` | `model`" in card and str(model.parent) not in card
    assert 'where = "out6"' in card and "dtype=torch.bfloat16" in card and "$" not in card
    for name in ("metrics/validation.jsonl", "report/report.json"):
        (run / name).unlink()


def test_a_tokenizer_that_cannot_be_read_is_said_and_nothing_left(published, tmp_path, capsys):
    _, run = published
    file = run / "tokenizer" / "tokenizer.json"
    kept = file.read_bytes()
    file.write_bytes(kept[:500])
    try:
        assert to_hf(run, tmp_path / "out", "--with_code") == 2
    finally:
        file.write_bytes(kept)
    assert "holds no tokenizer" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_adapter_brings_the_code_of_its_base(published, tmp_path):
    model, _ = published
    run = save_run(tmp_path / "lora", model, rank=2)
    assert to_hf(run, tmp_path / "plain", layout="adapter") == 0
    assert names(tmp_path / "plain") == {"adapter_config.json", "adapter_model.safetensors"}
    assert to_hf(run, tmp_path / "ours", "--with_code", layout="adapter") == 0
    assert names(tmp_path / "ours") == names(tmp_path / "plain") | {"modeling_llada2.py", "README.md"}
    card = (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert main(["upload", str(tmp_path / "ours"), "--repo=a/b", "--dry_run"]) == 0
    assert "library_name: peft" in card and "on the base model `model`" in card and str(tmp_path) not in card


def check(directory, home):
    """The script that also `export_elsewhere.sh` runs, in a fresh process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, str(CHECK), str(directory)], cwd=home, env=environment, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_exports_load_by_auto_class_and_compute_what_ours_computes(tmp_path):
    """Goldens a and b in both layouts, a chain with a chat template, a LoRA run and its adapter. This runs the Python
    file of a model directory (`trust_remote_code`): the one that this program has just written there."""
    pytest.importorskip("torch")
    exports.make(tmp_path / "exports")
    (tmp_path / "home").mkdir()
    done = check(tmp_path / "exports", tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert sum(line.startswith("same") for line in lines) == 6 * 3 + 2 + (importlib.util.find_spec("peft") is not None)
    golden = dict(np.load(exports.GOLDEN / "a" / "expected.npz"))
    file = tmp_path / "exports" / "expected" / "a_split.npz"  # and the check can fail
    given = dict(np.load(file))
    given["logits"] = given["logits"] + 1e-3 * np.abs(golden["full_logits"]).max()
    given["infill_filled"][0] += 1
    np.savez(file, **given)
    done = check(tmp_path / "exports", tmp_path / "home")
    assert done.returncode == 1 and done.stdout.count("OTHER") == 2, done.stdout


@pytest.mark.parametrize("letter", ["a", "b"])
@pytest.mark.parametrize("layout", ["split", "merged"])
def test_the_code_computes_the_golden_numbers(letter, layout):
    """Also on [noisy ; clean], by a mask of booleans; a directory of any origin is read without remote code."""
    torch = pytest.importorskip("torch")
    golden = dict(np.load(exports.GOLDEN / letter / "expected.npz"))
    model = torch_model.modeling().LLaDA2MoeModelLM.from_pretrained(
        exports.GOLDEN / letter / f"{layout}_bf16", dtype=torch.float32
    )

    def off(name, logits):
        return np.abs(logits.detach().numpy() - golden[name]).max() / np.abs(golden[name]).max()

    assert off("full_logits", model(torch.from_numpy(golden["input_ids"]).long()).logits) < 1e-5
    both, positions = (torch.from_numpy(golden[name]).long() for name in ("bd_input_ids", "bd_position_ids"))
    allowed = torch.from_numpy(golden["bd_allowed"] > 0)[None, None]
    assert off("bd_logits", model(both, allowed, positions).logits) < 1e-5


def test_factors_of_single_experts_are_not_passed_over_by_merged_ones(published, tmp_path):
    """PEFT loads what fits and is silent about the rest."""
    torch = pytest.importorskip("torch")
    _, run = published
    assert to_hf(run, tmp_path / "out", layout="merged") == 0
    model = torch_model.modeling().LLaDA2MoeModelLM.from_pretrained(tmp_path / "out")
    name = "model.layers.1.mlp.experts.3.up_proj.lora_A.default.weight"
    with pytest.raises(ValueError, match=r"is of one expert, and this model's are merged"):
        model.load_state_dict({name: torch.zeros(2, 16)}, strict=False)
    model.load_state_dict(model.state_dict())


def test_weights_that_are_not_there_are_an_error(published, tmp_path):
    """A model_type that lies about the layout must not leave random experts behind."""
    pytest.importorskip("torch")
    _, run = published
    assert to_hf(run, tmp_path / "out") == 0
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    model = torch_model.modeling().LLaDA2MoeModelLM
    assert model.from_pretrained(tmp_path / "out").config.model_type == "llada2_moe"
    (tmp_path / "out" / "config.json").write_text(json.dumps(values | {"model_type": "llada2_moe_veomni"}))
    with pytest.raises(ValueError, match=r"6 weights are not there, model\.layers\.1\.mlp\.experts\.down_proj first"):
        model.from_pretrained(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text(json.dumps(values | {"score_function": "softmax"}))
    with pytest.raises(ValueError, match=r"score_function = 'softmax'; this model computes 'sigmoid' only"):
        model.from_pretrained(tmp_path / "out")


def test_draws_follow_the_distribution_and_the_generator():
    torch = pytest.importorskip("torch")
    golden = exports.GOLDEN / "a" / "split_bf16"
    model = torch_model.modeling().LLaDA2MoeModelLM.from_pretrained(golden, dtype=torch.float32)
    row = torch.arange(8)[None].repeat(512, 1)
    row[:, 5] = 299
    logits = model(row[:1]).logits[0, 5].detach()
    logits[299] = -torch.inf
    top = int(logits.argmax())

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return model.infill(row, mask_token_id=299, temperature=1.0, threshold=0.0, generator=generator).tokens_BL

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    share = float((draw(0)[:, 5] == top).float().mean())
    assert abs(share - float(logits.softmax(-1)[top])) < 5 * (0.25 / 512) ** 0.5
    kept_V = np.isfinite(np.asarray(decode.nucleus(jnp.asarray(logits.numpy()), 0.2)))
    generator = torch.Generator().manual_seed(0)
    few = model.infill(row, mask_token_id=299, temperature=1.0, top_p=0.2, generator=generator).tokens_BL[:, 5]
    assert 1 < kept_V.sum() < 100 and set(few.tolist()) == set(np.flatnonzero(kept_V))
    with pytest.raises(ValueError, match="top_p: expected a share"):
        model.infill(row, mask_token_id=299, temperature=1.0, top_p=0)
    with pytest.raises(ValueError, match="pass mask_token_id="):
        model.infill(row)
    with pytest.raises(TypeError, match="treshold"):
        model.infill(row, mask_token_id=299, treshold=0.9)
    blocks = torch.tensor([[0, 0, 0, 0, 0, 9, 1, 0]]).repeat(512, 1)
    row[:, 6] = 299
    with pytest.raises(ValueError, match="must not fall from left to right"):  # an end is held back for ever
        model.infill(
            row, block_BL=blocks, unit_BL=torch.ones_like(row), mask_token_id=299, end_token_ids=tuple(range(299))
        )
