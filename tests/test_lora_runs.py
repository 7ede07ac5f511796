"""LoRA runs on disk: factors without the base, resumed and read back; exported folded, and as a PEFT adapter."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import checkpoints
from anyorder_jax import checkpoint, digest, run_directory, sharding, state, weights
from anyorder_jax.config import CheckpointConfig, Config, LoRAConfig, MeshConfig, ModelSelection
from anyorder_jax.evaluate import evaluate
from anyorder_jax.evaluation.request import Request
from anyorder_jax.model import lora
from anyorder_jax.pretrained.load import load_params, read_model_config
from conversion.__main__ import main
from small_run import finish, learned, start

CONFIG = checkpoints.CONFIG | {"initializer_range": 0.02}
RANK, ALPHA = 3, 6.0


def make_run(folder, base_dtype="", targets="attention,dense,shared,experts", mesh=None):
    """(run directory, base directory, parameters): a checkpoint at step 5 with random factors on a float32 base."""
    tensors = {name: 0.1 * x for name, x in checkpoints.random_tensors(CONFIG, np.float32).items()}
    source = checkpoints.write(folder / "source", CONFIG, tensors)
    lora_config = LoRAConfig(rank=RANK, alpha=ALPHA, base_dtype=base_dtype, targets=targets)
    config = dataclasses.replace(Config(), model=ModelSelection(path=str(source)), lora=lora_config)
    model_config = read_model_config(source)
    mesh = sharding.make_mesh(mesh or MeshConfig(), jax.devices()[: 8 if mesh else 1])
    base, digests = weights.load_base(config, model_config, mesh)
    rng = np.random.default_rng(6)
    shapes, _ = lora.split(state.abstract_params(model_config, mesh, "float32", lora_config))
    factors = jax.tree.map(lambda s: jax.device_put(rng.normal(size=s.shape).astype("f4"), s.sharding), shapes)
    saved = state.TrainState(jnp.int32(5), factors, {"count": jnp.zeros(2)})
    writer = checkpoint.Checkpointer(folder / "run", CheckpointConfig())
    meta = run_directory.describe(config, model_config, {}) | {"base": digests}
    writer.save(saved, {"batch": 0}, meta)
    writer.close()
    return folder / "run", source, {**base, **factors}


def export(run, output, layout, *more):
    return main(["to_hf", "--checkpoint", str(run), "--output_path", str(output), "--layout", layout, *more])


@pytest.mark.parametrize("base_dtype", ["", "int8"])
def test_a_run_is_read_back_and_exported_as_what_it_computes(tmp_path, base_dtype):
    run, source, params = make_run(tmp_path, base_dtype, mesh=MeshConfig(1, 2, 2, 2))
    described = json.loads((run / "checkpoints" / "5" / "params" / "_METADATA").read_text(encoding="utf-8"))
    stored = {weight["key_metadata"][0]["key"] for weight in described["tree_metadata"].values()}
    assert stored == {"lora"}, stored  # the base is not there
    config, model_config, read, _ = weights.load_for_inference(run)
    jax.tree.map(np.testing.assert_array_equal, read, params)

    folded = lora.fold(read, config.lora)
    for layout in ("split", "merged"):
        assert export(run, tmp_path / layout, layout) == 0
        exported = load_params(tmp_path / layout, model_config)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), exported, folded)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), exported["embedding"], read["embedding"])
    again = weights.load_params(run, model_config, state.abstract_params(model_config, one_device(), "bfloat16"))
    assert again["moe"]["expert_down"].dtype == jnp.bfloat16
    np.testing.assert_allclose(again["moe"]["expert_down"], folded["moe"]["expert_down"], rtol=2**-7, atol=1e-6)
    if not base_dtype:  # numbers of the checkpoint itself, by their published names
        original, merged = checkpoints.read(source), checkpoints.read(tmp_path / "split")
        assert merged.keys() == original.keys()
        assert export(run, tmp_path / "adapter", "adapter") == 0
        check_adapter(tmp_path / "adapter", original, merged)


@pytest.mark.parametrize("base_dtype", ["", "int8"])
def test_a_run_is_held_otherwise_for_inference(tmp_path, base_dtype):
    """The digests of its base are of what was read, so that another form of the same weights is not another base."""
    run, _, params = make_run(tmp_path, base_dtype)
    narrow, in_bits = (weights.load_for_inference(run, dtype=dtype) for dtype in ("bfloat16", "int8"))
    assert narrow.dtype == (base_dtype or "bfloat16") and in_bits.dtype == "int8"
    for loaded in (narrow, in_bits):
        assert loaded.params["embedding"].dtype == loaded.config.model.compute_dtype == "bfloat16"
        jax.tree.map(np.testing.assert_array_equal, loaded.params["lora"], params["lora"])
    if base_dtype:  # the same bits as those beside which the factors were trained
        jax.tree.map(np.testing.assert_array_equal, in_bits.params["moe"]["expert_down"], params["moe"]["expert_down"])
        jax.tree.map(np.testing.assert_array_equal, narrow.params["moe"]["expert_down"], params["moe"]["expert_down"])


def one_device():
    return sharding.make_mesh(MeshConfig(), jax.devices()[:1])


def check_adapter(directory, original, merged):
    """merged = original + alpha / r * B A for the modules of the adapter (PEFT's formula), and the same elsewhere."""
    config = json.loads((directory / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", RANK, ALPHA, "none")
    assert config["target_modules"] == ["dense", "down_proj", "gate_proj", "query_key_value", "up_proj"]
    with safe_open(directory / "adapter_model.safetensors", framework="np") as file:
        adapter = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # written out: attention of 3 layers, one dense MLP, in 2 layers 8 experts and a shared one
    assert len(adapter) == 2 * (3 * 2 + 3 + 2 * (8 + 1) * 3)
    for name, weight in original.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" not in adapter:
            np.testing.assert_array_equal(merged[name], weight)
            assert not name.endswith(("proj.weight", "attention.dense.weight", "query_key_value.weight"))
            continue
        a, b = adapter.pop(f"{module}.lora_A.weight"), adapter.pop(f"{module}.lora_B.weight")
        assert a.shape == (RANK, weight.shape[1]) and b.shape == (weight.shape[0], RANK) and a.dtype == np.float32
        np.testing.assert_allclose(merged[name], weight + ALPHA / RANK * (b @ a), atol=2e-6, err_msg=name)
    assert not adapter


def test_another_base_is_refused_and_nothing_left_behind(tmp_path, capsys):
    run, source, _ = make_run(tmp_path, targets="attention,experts")
    assert export(run, tmp_path / "adapter", "adapter", "--dtype", "bfloat16") == 0
    pattern = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert re.fullmatch(pattern, "model.layers.2.mlp.experts.11.up_proj")
    assert not re.fullmatch(pattern, "model.layers.2.mlp.shared_experts.up_proj")
    tensors = checkpoints.read(source)
    tensors["model.layers.2.mlp.experts.6.down_proj.weight"][3, 1] += 1
    for file in source.iterdir():
        file.unlink()
    checkpoints.write(source, CONFIG, tensors)
    with pytest.raises(ValueError, match=r"1 of 23 differ, moe/expert_down first"):
        weights.load_for_inference(run)
    assert export(run, tmp_path / "out", "split") == 2
    assert "moe/expert_down" in capsys.readouterr().err
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"is not there\. A LoRA run holds its factors only"):
        weights.load_for_inference(run)
    assert {p.name for p in tmp_path.iterdir()} == {"run", "elsewhere", "adapter"}


def test_digests_of_parts_sum_to_the_whole():
    x = np.random.default_rng(0).normal(size=(4, 6, 10)).astype(np.float32)
    parts = [(slice(a, a + 2), slice(0, 6), slice(c, c + 5)) for a in (0, 2) for c in (0, 5)]
    total = sum(digest.of_part(x[part], part, x.shape) for part in parts) % 2**32
    assert [total] == digest.of_arrays([jnp.asarray(x)])


def test_a_run_goes_on_bit_for_bit_and_is_evaluated(tmp_path):
    """The real commands. The last checkpoint is taken away, so that the second call repeats the last four updates."""
    run = tmp_path / "run"
    arguments = [tmp_path / "data", run, "--config.lora.rank=2", "--config.lora.base_dtype=int8",
                 "--config.train.num_steps=8", "--config.checkpoint.save_every_steps=4"]  # fmt: skip
    code, output = finish(start(*arguments))
    assert code == 0, output
    whole, log = weights.load_for_inference(run)[2], learned(run)
    shutil.rmtree(run / "checkpoints" / "8")
    code, output = finish(start(*arguments))
    assert code == 0 and "at step 4" in output, output
    jax.tree.map(np.testing.assert_array_equal, weights.load_for_inference(run)[2], whole)
    assert learned(run) == log
    evaluate(run, Request(num_episodes=2, num_windows=2, rules=["greedy"]))
    assert (run / "report" / "report.json").is_file()
