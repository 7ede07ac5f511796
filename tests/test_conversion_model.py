"""Checkpoints into sharded arrays, Orbax and back: exact, and the same numbers as the reference implementation."""

import contextlib
import dataclasses
import filecmp
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import checkpoints
from anyorder_jax import checkpoint, run_directory, sharding, state, weights
from anyorder_jax.config import CheckpointConfig, Config, DataConfig, MeshConfig, ModelSelection, TrainConfig
from anyorder_jax.model import transformer
from anyorder_jax.model.presets import PRESETS
from anyorder_jax.pretrained import load, names, tree
from anyorder_jax.pretrained.load import load_params, read_model_config
from anyorder_jax.pretrained.reader import Reader
from anyorder_jax.training import shape
from conversion import orbax, zarr
from conversion.__main__ import main

GOLDEN = Path(__file__).parent / "golden"
CONFIG = checkpoints.CONFIG | {"initializer_range": 0.02}


def assert_same_trees(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), first, second)
    assert jax.tree.structure(first) == jax.tree.structure(second)


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype and array.tobytes() == second[name].tobytes(), name


@pytest.mark.parametrize(("golden", "layout"), [("a", "split_bf16"), ("b", "merged_bf16")])
def test_verify_finds_the_numbers_of_the_reference(golden, layout, tmp_path, capsys):
    expected = GOLDEN / golden / "expected.npz"
    arguments = [
        "verify", "--model", str(GOLDEN / golden / layout), "--inputs", str(expected), "--block_size", "4",
        "--outputs", str(tmp_path / "y.npz"), "--against", str(expected),
    ]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    compared = ["full_logits", "full_hidden", "full_router_logits", "full_topk_idx", "full_topk_weight", "bd_logits",
                "bd_topk_idx", "bd_topk_weight", "loss_same", "loss_shift", "noisy_full_logits", "grad_norms_same",
                "grad_norms_shift", "grad_same:lm_head.weight", "grad_shift:model.layers.3.mlp.experts.gate_proj",
                "adamw_losses", "adamw_grad_norms", "adamw_final_pad_row", "initial_pad_row"]  # fmt: skip
    assert all(f"\n{name} " in printed for name in compared)
    with np.load(tmp_path / "y.npz") as ours, np.load(expected) as theirs:
        assert np.abs(ours["full_logits"] - theirs["full_logits"]).max() < 5e-5
        np.testing.assert_allclose(ours["grad_norms_same"], theirs["grad_norms_same"], rtol=2e-5, atol=1e-7)
        assert ours["tensor_names"].size == ours["norm_stored"].size == ours["norm_held"].size


def test_verify_notices_other_numbers_and_other_weights(tmp_path, capsys):
    with np.load(GOLDEN / "b" / "expected.npz") as file:
        arrays = {name: file[name] for name in ("input_ids", "full_logits", "full_topk_idx")}
    arguments = [
        "verify", "--model", str(GOLDEN / "b" / "split_bf16"), "--inputs", str(tmp_path / "x.npz"), "--block_size", "4",
        "--outputs", str(tmp_path / "y.npz"), "--against", str(tmp_path / "x.npz"),
    ]  # fmt: skip
    arrays["full_logits"][1, 2, 3] += 0.001
    np.savez(tmp_path / "x.npz", **arrays)
    assert main(arguments) == 1
    assert "NO" in capsys.readouterr().out
    np.savez(tmp_path / "x.npz", prompt=np.zeros(3))
    assert main(arguments) == 2
    assert "expected input_ids, noisy_ids, bd_input_ids, found prompt" in capsys.readouterr().err


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_covers_every_weight_of_every_preset(name):
    config = PRESETS[name]
    dims = names.Dims.from_config(config.to_hf(), name)
    is_leaf = lambda node: hasattr(node, "axes")  # noqa: E731
    flat = jax.tree_util.tree_flatten_with_path(transformer.parameters(config, jnp.bfloat16), is_leaf=is_leaf)[0]
    expected = {tuple(key.key for key in path): (p.shape, p.dtype) for path, p in flat}
    assert {leaf.path: (leaf.shape, leaf.dtype) for leaf in tree.leaves(dims, "bfloat16")} == expected
    declared = sum(np.prod(shape, dtype=np.int64) for shape, _ in expected.values())
    for layout in names.LAYOUTS:
        places = names.expected(dims, layout)
        assert sum(np.prod(place.shape, dtype=np.int64) for place in places.values()) == declared
    if name == "llada2_mini":
        assert declared == pytest.approx(16.26e9, rel=1e-3)  # the published count


@pytest.mark.parametrize(
    ("sizes", "chunk_bytes"),
    [((1, 2, 2, 2), load.CHUNK_BYTES), ((2, 4, 1, 1), load.CHUNK_BYTES), ((1, 2, 2, 2), 600)],
)
def test_a_mesh_holds_the_same_weights(monkeypatch, tmp_path, sizes, chunk_bytes):
    config = CONFIG | {"num_shared_experts": 2, "use_qkv_bias": True, "use_bias": True}
    source = checkpoints.write(tmp_path / "source", config)
    model_config = read_model_config(source)
    whole = load_params(source, model_config)
    monkeypatch.setattr(load, "CHUNK_BYTES", chunk_bytes)  # 600: every leaf takes the way of the large ones
    times_read, largest = {}, []

    class Counting(Reader):
        def read(self, leaf, block, *more):
            for layer in block.layers:
                for expert in block.experts:
                    for row in leaf.rows:
                        name = self.name(leaf, row, layer, expert)
                        counts = times_read.setdefault(name, np.zeros(self.view(leaf, row, layer, expert).shape, int))
                        counts[block.stored] += 1
            stored = super().read(leaf, block, *more)
            largest.append(stored.size * 4)
            return stored

    monkeypatch.setattr(load, "Reader", Counting)
    mesh = sharding.make_mesh(MeshConfig(*sizes))
    placed = sharding.weight_shardings(transformer.parameters(model_config, jnp.float32), mesh)
    params = load_params(source, model_config, placed)
    assert_same_trees(whole, params)
    experts = params["moe"]["expert_gate_up"]
    assert experts.sharding == placed["moe"]["expert_gate_up"]
    assert max(shard.data.size for shard in experts.addressable_shards) * 4 <= experts.size  # whole nowhere
    assert times_read.keys() == checkpoints.read(source).keys()
    assert all((counts == 1).all() for counts in times_read.values())  # each number once, for all devices
    assert max(largest) <= max(chunk_bytes, 608)  # no more on the host; 608: a row of a query_key_value, as it is cut


@pytest.mark.parametrize("golden", ["a", "b"])
def test_both_layouts_are_the_same_model(golden):
    config = read_model_config(GOLDEN / golden / "split_bf16")
    assert config == read_model_config(GOLDEN / golden / "merged_bf16")
    split, merged = (load_params(GOLDEN / golden / layout, config) for layout in ("split_bf16", "merged_bf16"))
    assert_same_trees(split, merged)


def test_where_every_tensor_goes(tmp_path):
    # written out by hand for one weight of each kind, so that the table is not compared with itself
    source = checkpoints.write(tmp_path / "source", CONFIG)
    stored = {name: np.float32(array) for name, array in checkpoints.read(source).items()}
    params = jax.tree.map(np.asarray, load_params(source, read_model_config(source)))
    layer, moe = (
        "model.layers.2.",
        params["moe"],
    )  # layer 0 is dense, so that layer 2 is number 1 of the others
    pairs = [
        (params["embedding"], stored["model.word_embeddings.weight"]),
        (params["head"], stored["lm_head.weight"].T),
        (params["dense"]["gate_up"][0, :, 1], stored["model.layers.0.mlp.up_proj.weight"].T),
        (params["dense"]["input_norm"][0], stored["model.layers.0.input_layernorm.weight"]),
        (moe["query_key_value"][1], stored[layer + "attention.query_key_value.weight"].T),
        (moe["router"][1], stored[layer + "mlp.gate.weight"].T),
        (moe["expert_bias"][1], stored[layer + "mlp.gate.expert_bias"]),
        (moe["expert_gate_up"][1, 5, :, 0], stored[layer + "mlp.experts.5.gate_proj.weight"].T),
        (moe["expert_gate_up"][1, 5, :, 1], stored[layer + "mlp.experts.5.up_proj.weight"].T),
        (moe["expert_down"][1, 5], stored[layer + "mlp.experts.5.down_proj.weight"].T),
        (moe["shared_down"][1], stored[layer + "mlp.shared_experts.down_proj.weight"].T),
    ]
    for held, expected in pairs:
        np.testing.assert_array_equal(held, expected)


@pytest.mark.parametrize(
    ("layout", "dtype", "chunk_bytes", "mesh"),
    [
        ("split", ml_dtypes.bfloat16, zarr.CHUNK_BYTES, []),
        ("split", ml_dtypes.bfloat16, 1000, ["--mesh", "fsdp=2,expert=2,tensor=2"]),
        ("merged", np.float32, 230, ["--mesh", "fsdp=4"]),  # rows are cut, and the last chunk of some is not full
    ],
)
def test_to_orbax_and_back_is_the_same_checkpoint(monkeypatch, tmp_path, layout, dtype, chunk_bytes, mesh):
    config = CONFIG | {"vocab_size": 37, "first_k_dense_replace": 0 if layout == "split" else 1}
    tensors = checkpoints.random_tensors(config, dtype)
    # a bias that was rounded is held in float32, and goes back as it came
    tensors |= {name: array.astype(dtype) for name, array in tensors.items() if name.endswith("expert_bias")}
    source = checkpoints.write(tmp_path / "split", config, tensors)
    (source / "modeling_llada2_moe.py").write_text("raise RuntimeError('never run')\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((GOLDEN / "tokenizer" / name).read_bytes())
    if layout == "merged":
        assert main(["merge", "--input_path", str(source), "--output_path", str(tmp_path / "merged")]) == 0
        source = tmp_path / "merged"
    monkeypatch.setattr(zarr, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(zarr, "BLOCK_BYTES", chunk_bytes // 3)
    monkeypatch.setattr(orbax, "BLOCK_BYTES", chunk_bytes // 3)
    run, back = tmp_path / "run", tmp_path / "back"
    assert main(["to_orbax", "--input_path", str(source), "--output_path", str(run), *mesh]) == 0
    to_hf = ["to_hf", "--checkpoint", str(run), "--layout", layout]
    assert main([*to_hf, "--output_path", str(back)]) == 0
    assert_same_tensors(checkpoints.read(back), checkpoints.read(source))
    others = ["config.json", "modeling_llada2_moe.py", "tokenizer.json", "tokenizer_config.json"]
    assert filecmp.cmpfiles(source, back, others, shallow=False)[0] == others
    assert {p.name for p in back.iterdir()} == {*others, "model.safetensors"}
    model_config, params, tokenizer = weights.load_for_inference(run)[1:]  # what evaluate does
    assert_same_trees(params, load_params(source, model_config, None, params["embedding"].dtype))
    assert (tokenizer / "tokenizer.json").is_file()


def test_export_in_another_dtype_and_layout(tmp_path, capsys):
    source = checkpoints.write(tmp_path / "source", CONFIG, checkpoints.random_tensors(CONFIG, np.float32))
    run = str(tmp_path / "run")
    assert main(["to_orbax", "--input_path", str(source), "--output_path", run]) == 0
    arguments = ["to_hf", "--checkpoint", run, "--output_path", str(tmp_path / "m"), "--layout", "merged"]
    arguments += ["--dtype", "bfloat16", "--max_shard_bytes", "9000"]
    assert main([*arguments, "--dry_run"]) == 0
    assert not (tmp_path / "m").exists()
    assert main(arguments) == 0
    merge = [
        "merge",
        "--input_path",
        str(source),
        "--output_path",
        str(tmp_path / "n"),
        "--dtype",
        "bfloat16",
    ]
    assert main([*merge, "--max_shard_bytes", "9000"]) == 0
    assert_same_tensors(checkpoints.read(tmp_path / "m"), checkpoints.read(tmp_path / "n"))
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    assert json.loads((tmp_path / "m" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    verify = ["verify", "--model", run, "--inputs", str(write_ids(tmp_path)), "--outputs", str(tmp_path / "y")]
    assert main([*verify, "--dtype", "bfloat16"]) == 0  # rounded on the way, in place of the run's float32
    assert (
        f"norms of {len(checkpoints.read(source))} tensors, stored and held" in capsys.readouterr().out
    )  # those that step 0 was made from
    with np.load(tmp_path / "y") as found:  # exactly where it was asked for
        assert 1e-4 < np.abs(found["norm_held"] / found["norm_stored"] - 1).max() < 1e-2


@pytest.mark.parametrize(("mesh", "chunk_bytes"), [((1, 1, 1, 1), 2**26), ((1, 2, 2, 2), 6000)])
def test_what_training_saved_is_exported_from_its_own_chunks(monkeypatch, tmp_path, mesh, chunk_bytes):
    # what Orbax itself wrote: one store for all arrays, compressed, cut as the mesh and the chunk size say
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", chunk_bytes)
    source = checkpoints.write(tmp_path / "source", CONFIG, checkpoints.random_tensors(CONFIG, np.float32))
    model_config = read_model_config(source)
    devices = sharding.make_mesh(MeshConfig(*mesh), jax.devices()[: np.prod(mesh)])
    shapes = state.abstract_params(model_config, devices, "float32")
    params = weights.load_params(source, model_config, shapes)
    saved = state.TrainState(jnp.int32(3), params, {"count": jnp.zeros(2)})
    checkpointer = checkpoint.Checkpointer(tmp_path / "run", CheckpointConfig())
    config = dataclasses.replace(Config(), model=ModelSelection(path=str(source)))
    checkpointer.save(saved, {"batch": 0}, run_directory.describe(config, model_config, {}))
    checkpointer.close()
    assert (tmp_path / "run" / "checkpoints" / "3" / "params" / "manifest.ocdbt").is_file()
    arguments = ["to_hf", "--checkpoint", str(tmp_path / "run"), "--layout", "split"]
    assert main([*arguments, "--output_path", str(tmp_path / "back")]) == 0
    assert_same_tensors(checkpoints.read(tmp_path / "back"), checkpoints.read(source))


def write_ids(directory):
    np.savez(directory / "ids.npz", input_ids=np.arange(12).reshape(2, 6))
    return directory / "ids.npz"


def test_inspect_reads_a_run(tmp_path, capsys):
    source = checkpoints.write(tmp_path / "source", CONFIG)
    run = tmp_path / "run"
    assert main(["to_orbax", "--input_path", str(source), "--output_path", str(run)]) == 0
    for path in (run, run / "checkpoints" / "0"):
        assert main(["inspect", str(path), "--mesh", "fsdp=2,expert=4"]) == 0
        printed = capsys.readouterr().out
        assert "moe/expert_gate_up" in printed and "[2, 8, 16, 2, 8]" in printed
        assert "per device on data=1, fsdp=2, expert=4, tensor=1" in printed
    (run / "checkpoints" / "0" / "params" / "moe.expert_down" / ".zarray").unlink()
    assert main(["inspect", str(run)]) == 1
    assert "moe.expert_down is missing" in capsys.readouterr().out
    assert main(["to_hf", "--checkpoint", str(run), "--output_path", str(tmp_path / "h"), "--layout", "split"]) == 2
    assert "cannot read the weight moe.expert_down" in capsys.readouterr().err
    assert not (tmp_path / "h").exists()


def test_nan_is_named_by_every_verb(tmp_path):
    tensors = checkpoints.random_tensors(CONFIG)
    bad = "model.layers.2.mlp.experts.6.down_proj.weight"
    tensors[bad][3, 1] = -np.float32(np.nan)
    source = checkpoints.write(tmp_path / "source", CONFIG, tensors)
    arguments = ["--input_path", str(source), "--output_path"]
    with pytest.warns(UserWarning, match=bad):
        assert main(["merge", "--check_nan", *arguments, str(tmp_path / "m")]) == 0
    with pytest.warns(UserWarning, match=bad):
        assert main(["to_orbax", *arguments, str(tmp_path / "run")]) == 0
    with pytest.warns(UserWarning, match=bad):
        to_hf = ["to_hf", "--checkpoint", str(tmp_path / "run"), "--layout", "split"]
        assert main([*to_hf, "--output_path", str(tmp_path / "h")]) == 0
    assert_same_tensors(checkpoints.read(tmp_path / "h"), tensors)


def test_a_dry_run_of_to_orbax_writes_nothing(tmp_path):
    source = checkpoints.write(tmp_path / "source", CONFIG)
    assert main(["to_orbax", "--input_path", str(source), "--output_path", str(tmp_path / "o"), "--dry_run"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"source"}


@pytest.mark.parametrize("chunk_bytes", [load.CHUNK_BYTES, 100])
def test_nan_is_named_when_it_is_loaded(monkeypatch, tmp_path, chunk_bytes):
    monkeypatch.setattr(load, "CHUNK_BYTES", chunk_bytes)
    tensors = checkpoints.random_tensors(CONFIG)
    tensors["model.layers.2.mlp.experts.6.down_proj.weight"][3, 1] = np.nan
    tensors["lm_head.weight"][0, 0] = -np.inf  # not a NaN
    source = checkpoints.write(tmp_path / "source", CONFIG, tensors)
    with pytest.warns(UserWarning) as caught:
        load_params(source, read_model_config(source))
    assert [str(w.message) for w in caught if "NaN" in str(w.message)] == [
        f"{source}: model.layers.2.mlp.experts.6.down_proj.weight holds NaN."
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_scaling", {"type": "yarn", "factor": 4.0}), ("rope_type", "linear"), ("sliding_window", 4096),
        ("norm_topk_prob", False), ("score_function", "softmax"), ("scoring_func", "softmax"), ("n_group", 3),
        ("tie_word_embeddings", True), ("hidden_act", "gelu"), ("use_qk_norm", False), ("router_dtype", "bf16"),
        ("rotary_dim", 2), ("attention_bias", True), ("num_nextn_predict_layers", 1), ("moe_layer_freq", 2),
        ("layer_types", ["sliding_attention"]), ("quantization_config", {"bits": 8}), ("use_sliding_window", True),
    ],
)  # fmt: skip
def test_what_the_model_would_not_compute_is_refused(key, value, tmp_path, capsys):
    source = checkpoints.write(tmp_path / "source", CONFIG | {key: value})
    assert main(["to_orbax", "--input_path", str(source), "--output_path", str(tmp_path / "o"), "--dry_run"]) == 2
    assert key in capsys.readouterr().err


def test_another_model_is_refused(tmp_path):
    source = checkpoints.write(tmp_path / "source", CONFIG)
    with pytest.raises(ValueError, match="expected ModelConfig"):
        load_params(source, PRESETS["tiny"])


def test_rows_longer_than_the_model_knows_are_refused(tmp_path):
    source = checkpoints.write(tmp_path / "source", CONFIG)  # 40 rows of the embedding, 128 positions
    config = dataclasses.replace(Config(), model=ModelSelection(path=str(source)))
    task = SimpleNamespace(vocabulary=SimpleNamespace(size=40))
    with pytest.raises(ValueError, match=r"row_length: 232 is more than the max_position_embeddings = 128 of"):
        shape.model_config_of(config, task)


@pytest.mark.parametrize(("block_size", "is_refused"), [(2, True), (6, True), (8, False)])
def test_blocks_that_leak_the_answer_are_refused_before_the_weights_are_read(tmp_path, block_size, is_refused):
    source = checkpoints.write(tmp_path / "source", CONFIG | {"expert_capacity": 4, "block_size": 4})
    config = Config(
        data=DataConfig(row_length=64), model=ModelSelection(path=str(source)),
        train=TrainConfig(objective="block_diffusion", block_size=block_size),
    )  # fmt: skip
    task = SimpleNamespace(vocabulary=SimpleNamespace(size=40))
    message = rf"train\.block_size: expected a multiple of 4, .* got {block_size}: .* Set it to 4"
    with pytest.raises(ValueError, match=message) if is_refused else contextlib.nullcontext():
        shape.model_config_of(config, task)


def test_an_unknown_mesh_is_refused(tmp_path, capsys):
    source = checkpoints.write(tmp_path / "source", CONFIG)
    for mesh in ("fspd=2", "fsdp=0", "fsdp"):
        arguments = ["to_orbax", "--input_path", str(source), "--output_path", str(tmp_path / "o"), "--mesh", mesh]
        assert main(arguments) == 2
        assert f"--mesh: cannot use '{mesh}'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_inspect_tells_the_memory_of_a_mesh(tmp_path, capsys):
    source = checkpoints.write(tmp_path / "source", CONFIG)
    assert main(["inspect", str(source), "--mesh", "fsdp=2,expert=4", "--values"]) == 0
    printed = capsys.readouterr().out
    assert "names and shapes: as config.json asks for" in printed
    assert "per device on data=1, fsdp=2, expert=4, tensor=1" in printed
