"""merge and split: byte for byte, in both directions, with everything that travels along."""

import filecmp
import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import checkpoints
from anyorder_jax.pretrained.directory import open_model
from conversion import copying
from conversion.__main__ import main
from conversion.merge import convert

GOLDEN = Path(__file__).parent / "golden"


def files_of(directory):
    return sorted(str(p.relative_to(directory)) for p in Path(directory).rglob("*") if p.is_file())


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype and array.shape == second[name].shape, name
        assert array.tobytes() == second[name].tobytes(), name


@pytest.mark.parametrize(("golden", "max_shard_bytes"), [("a", 335_000), ("b", 280_000)])
def test_merge_writes_the_files_of_the_reference_converter(tmp_path, golden, max_shard_bytes):
    # the shard limit with which the golden files were made; every shard and the index are equal, not only the
    # tensors
    expected = GOLDEN / golden / "merged_bf16"
    convert(GOLDEN / golden / "split_bf16", tmp_path / "m", "merged", max_shard_bytes=max_shard_bytes)
    weights = [name for name in files_of(expected) if "model" in name]
    assert len(weights) == 3
    assert filecmp.cmpfiles(expected, tmp_path / "m", weights, shallow=False)[0] == weights
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "llada2_moe_veomni"


def test_there_and_back_is_the_same_checkpoint(tmp_path):
    from transformers import AutoTokenizer

    source = checkpoints.write(tmp_path / "source", num_shards=3)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((GOLDEN / "tokenizer" / name).read_bytes())
    (source / "modeling_llada2_moe.py").write_text("raise RuntimeError('never run')\n")
    (source / "assets").mkdir()
    (source / "assets" / "figure.png").write_bytes(b"\x89PNG")
    assert main(["merge", "--input_path", str(source), "--output_path", str(tmp_path / "m")]) == 0
    merged = checkpoints.read(tmp_path / "m")
    split = checkpoints.read(source)
    for half in ("gate", "up", "down"):
        stack = np.stack([split[f"model.layers.2.mlp.experts.{e}.{half}_proj.weight"] for e in range(8)])
        assert merged[f"model.layers.2.mlp.experts.{half}_proj"].tobytes() == stack.tobytes()
    assert merged["model.layers.1.mlp.gate.expert_bias"].dtype == np.float32  # kept, not rounded
    assert main(["split", "--input_path", str(tmp_path / "m"), "--output_path", str(tmp_path / "s")]) == 0
    assert_same_tensors(checkpoints.read(tmp_path / "s"), split)
    one_shard = [name for name in files_of(source) if not name.startswith("model")] + ["model.safetensors"]
    assert files_of(tmp_path / "s") == sorted([*one_shard, "modeling_llada2_moe.py"])
    for name in ("config.json", "modeling_llada2_moe.py", "assets/figure.png", "tokenizer.json"):
        assert filecmp.cmp(source / name, tmp_path / "s" / name, shallow=False), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "s")) > 0


@settings(max_examples=15, deadline=None)
@given(
    st.fixed_dictionaries({
        "num_hidden_layers": st.integers(2, 3), "first_k_dense_replace": st.integers(0, 1),
        "num_experts": st.integers(1, 12), "num_shared_experts": st.sampled_from([None, 0, 1, 2]),
        "use_bias": st.booleans(), "use_qkv_bias": st.booleans(), "hidden_size": st.integers(1, 5),
    }),
    st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]), st.integers(1, 4), st.integers(50, 5000),
)  # fmt: skip
def test_round_trip_of_any_shape(tmp_path_factory, changes, dtype, num_shards, max_shard_bytes):
    root = tmp_path_factory.mktemp("trip")
    config = checkpoints.CONFIG | changes
    tensors = checkpoints.random_tensors(config, dtype)
    source = checkpoints.write(root / "source", config, tensors, num_shards)
    convert(source, root / "m", "merged", max_shard_bytes=max_shard_bytes, show_progress=False)
    convert(root / "m", root / "s", "split", max_shard_bytes=max_shard_bytes, show_progress=False)
    assert_same_tensors(checkpoints.read(root / "s"), tensors)
    assert filecmp.cmp(source / "config.json", root / "s" / "config.json", shallow=False)
    sizes = [sum(t.num_bytes for t in open_model(root / "m").tensors.values() if t.path == path)
             for path in (root / "m").glob("*.safetensors")]  # fmt: skip
    largest = max(t.num_bytes for t in open_model(root / "m").tensors.values())
    assert max(sizes) <= max(max_shard_bytes, largest)


def nearest_even_bfloat16(values):
    """Rounding on the bits, written out: add half of the last kept place, and one less when it is even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dtype_rounds_every_tensor_as_the_reference_does(tmp_path, dtype):
    tensors = checkpoints.random_tensors(checkpoints.CONFIG, dtype)
    source = checkpoints.write(tmp_path / "source", tensors=tensors)
    paths = ["--input_path", str(source), "--output_path", str(tmp_path / "m")]
    assert main(["merge", *paths, "--dtype", "bfloat16"]) == 0
    found = checkpoints.read(tmp_path / "m")
    assert {str(array.dtype) for array in found.values()} == {"bfloat16"}
    for name in ("model.layers.1.mlp.gate.expert_bias", "lm_head.weight", "model.norm.weight"):
        assert np.array_equal(found[name].view(np.uint16), nearest_even_bfloat16(tensors[name])), name
    experts = np.stack([tensors[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(8)])
    assert np.array_equal(found["model.layers.1.mlp.experts.up_proj"].view(np.uint16), nearest_even_bfloat16(experts))
    assert json.loads((tmp_path / "m" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_nan_and_overflow_are_named_when_values_are_read(tmp_path):
    tensors = checkpoints.random_tensors(checkpoints.CONFIG, np.float32)
    tensors["model.norm.weight"][3] = np.nan
    tensors["lm_head.weight"][1, 2] = np.finfo(np.float32).max
    source = checkpoints.write(tmp_path / "source", tensors=tensors)
    with (
        pytest.warns(UserWarning, match=r"model\.norm\.weight holds NaN"),
        pytest.warns(UserWarning, match=r"lm_head\.weight holds numbers too large for BF16"),
    ):
        convert(source, tmp_path / "m", "merged", dtype="bfloat16")


@pytest.mark.parametrize("advice", [copying._MADV_POPULATE_READ, None, 12345])
def test_a_range_is_copied_whole_or_the_end_is_told(tmp_path, monkeypatch, advice):
    """Also where the kernel takes no advice, or does not know this one."""
    monkeypatch.setattr(copying, "_MADV_POPULATE_READ", advice)
    data = np.random.default_rng(0).bytes(5 * copying._COPY_BYTES // 2)
    (tmp_path / "source").write_bytes(b"head" + data)
    with copying.Files() as files, (tmp_path / "target").open("w+b") as target:
        source = files.mapped(tmp_path / "source")
        copying.copy_range(source, 4, target.fileno(), 7, len(data))
        with pytest.raises(ValueError, match="truncated"):
            copying.copy_range(source, 4, target.fileno(), 7, len(data) + 1)
        os.truncate(tmp_path / "source", copying._COPY_BYTES)
        with pytest.raises(ValueError, match="truncated"):
            copying.copy_range(source, 4, target.fileno(), 7, len(data))
    assert (tmp_path / "target").read_bytes()[7 : 7 + len(data)] == data


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    source = checkpoints.write(tmp_path / "source")
    arguments = ["merge", "--input_path", str(source), "--output_path", str(tmp_path / "m"), "--dry_run"]
    assert main(arguments) == 0
    assert os.listdir(tmp_path) == ["source"]
    assert "model.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["", "download", "merge", "split", "to_orbax", "to_hf", "verify", "inspect"])
def test_help_is_there_for_every_verb(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"] if verb else ["--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 400


def test_inspect_says_what_is_amiss(tmp_path, capsys):
    tensors = checkpoints.random_tensors(checkpoints.CONFIG)
    tensors["model.layers.1.mlp.experts.8.up_proj.weight"] = tensors.pop("model.layers.1.mlp.experts.3.up_proj.weight")
    source = checkpoints.write(tmp_path / "source", tensors=tensors)
    assert main(["inspect", str(source)]) == 1
    printed = capsys.readouterr().out
    assert "missing: model.layers.1.mlp.experts.3.up_proj.weight" in printed
    assert "unknown: model.layers.1.mlp.experts.8.up_proj.weight" in printed
    assert "split layout" in printed and "experts" in printed
