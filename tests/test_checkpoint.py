"""Checkpoints: what is damaged is named, set aside and not used; a full disk costs nothing that was saved before."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden_checkpoint
from anyorder_jax import checkpoint, digest, keys, sharding, state, weights
from anyorder_jax.config import CheckpointConfig, MeshConfig
from anyorder_jax.optimizer import make_optimizer
from runs import tiny_config, tiny_model
from saved_runs import flip_bits, largest


@pytest.fixture(scope="module")
def model():
    """(shapes, state at step 0) of a tiny run on one device."""
    config, model_config = tiny_config(), tiny_model()
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer, _ = make_optimizer(config.optimizer, 10, state.abstract_params(model_config, mesh, "float32"))
    shapes, _ = state.state_shardings(model_config, optimizer, mesh, "float32")
    return shapes, state.create(model_config, optimizer, mesh, "float32", keys.key(0, "init"))


def at(whole, step):
    """The state, told to be that of a step, with weights of its own."""
    params = jax.tree.map(lambda x: x + step, whole.params)
    return state.TrainState(jnp.int32(step), params, whole.opt_state)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """A run with checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    writer = checkpoint.Checkpointer(workdir, CheckpointConfig(keep_last=3))
    for step in (10, 20):
        writer.save(at(model[1], step), {"batches": {"next_index": step}, "half": 0.1}, {"config": {"seed": 1}})
    writer.close()
    return workdir


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_data(folder):
    path = folder / "data" / "metadata"
    changed = path.read_text().replace("20", "21")
    assert changed != path.read_text()
    path.write_text(changed)


DAMAGE = {
    "a flipped bit in the weights": lambda folder: flip_bits(folder / "params"),
    "truncated weights": lambda folder: truncate(largest(folder / "params")),
    "a flipped bit in the optimizer": lambda folder: flip_bits(folder / "optimizer"),
    "no optimizer": lambda folder: shutil.rmtree(folder / "optimizer"),
    "no weights": lambda folder: shutil.rmtree(folder / "params"),
    "no meta": lambda folder: shutil.rmtree(folder / "meta"),
    "truncated meta": lambda folder: truncate(largest(folder / "meta")),
    "a flipped bit in meta": lambda folder: flip_bits(folder / "meta"),
    "another number in the iterator's state": change_data,
    "an empty file of weights": lambda folder: largest(folder / "params").write_bytes(b""),
    "a missing file of weights": lambda folder: largest(folder / "params").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_used(model, saved, tmp_path, damage):
    workdir, said = tmp_path / "run", []
    shutil.copytree(saved, workdir)
    damage(workdir / "checkpoints" / "20")
    reader = checkpoint.Checkpointer(workdir, CheckpointConfig(keep_last=3), said.append)
    restored = reader.restore_newest(model[0], lambda meta: None)
    assert int(restored.state.step) == 10 and restored.data["batches"]["next_index"] == 10
    for ours, theirs in zip(
        jax.tree.leaves(restored.state.params), jax.tree.leaves(at(model[1], 10).params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert len(said) == 1 and f"{workdir}/checkpoints/20: this checkpoint is damaged (" in said[0]
    assert (workdir / "damaged" / "20").is_dir() and not (workdir / "checkpoints" / "20").exists()
    reader.save(at(model[1], 20), {"batches": {"next_index": 20}}, {})  # the step is free again
    reader.close()
    again = checkpoint.Checkpointer(workdir, CheckpointConfig()).restore_newest(model[0], lambda meta: None)
    assert int(again.state.step) == 20


def test_a_run_without_a_whole_checkpoint_does_not_start_again(model, saved, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for step in ("10", "20"):
        flip_bits(workdir / "checkpoints" / step / "params")
    with pytest.raises(ValueError, match=r"no checkpoint can be read \(20: .*; 10: .*does not start again by itself"):
        checkpoint.Checkpointer(workdir, CheckpointConfig()).restore_newest(model[0], lambda meta: None)
    assert (workdir / "checkpoints" / "20").is_dir()
    assert checkpoint.Checkpointer(tmp_path / "new", CheckpointConfig()).restore_newest(model[0], print) is None


def test_a_run_with_other_settings_is_refused_and_not_taken_for_damaged(model, saved, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)

    def refuse(meta):
        raise ValueError(f"other settings: {meta['config']}")

    with pytest.raises(ValueError, match=r"other settings: .*seed"):
        checkpoint.Checkpointer(workdir, CheckpointConfig()).restore_newest(model[0], refuse)
    assert (workdir / "checkpoints" / "20").is_dir()


@pytest.mark.parametrize("worst", [np.nan, np.inf])
@pytest.mark.parametrize("place", range(4))
def test_a_validation_loss_that_is_no_number_is_the_worst(model, tmp_path, worst, place):
    """Wherever it comes, also when the run was interrupted in between."""
    losses = [0.5, 0.9, 0.8, 0.7]
    losses.insert(place, worst)
    for step, loss in enumerate(losses, start=1):
        with checkpoint.Checkpointer(tmp_path, CheckpointConfig(keep_last=1, keep_best=1)) as writer:
            writer.save(at(model[1], step), {}, {}, loss)
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {1 + losses.index(0.5), len(losses)}


def test_digests_notice_every_bit_on_every_mesh(devices):
    rng = np.random.default_rng(0)
    tree = {
        "a": rng.normal(size=(8, 6)).astype(np.float32),
        "b": jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.bfloat16),
        "c": np.int32(7),
    }
    whole = digest.of_arrays(jax.tree.map(jnp.asarray, tree))
    mesh = sharding.make_mesh(MeshConfig(data=4, tensor=2), devices)
    split = jax.tree.map(lambda x: jax.device_put(x, sharding.replicated(mesh)), tree)
    split["a"] = jax.device_put(tree["a"], sharding.rows(sharding.make_mesh(MeshConfig(), devices)))
    assert digest.of_arrays({"a": split["a"]}) == whole[:1]
    assert digest.of_arrays({"b": split["b"], "c": split["c"]}) == whole[1:]
    swapped = tree["a"][::-1].copy()
    assert digest.of_arrays({"a": jnp.asarray(swapped)}) != whole[:1]
    for element in (0, 17, 47):
        for bit in (0, 13, 31):
            changed = tree["a"].copy()
            changed.view(np.uint32).reshape(-1)[element] ^= np.uint32(1 << bit)
            assert digest.of_arrays({"a": jnp.asarray(changed)}) != whole[:1]
    assert digest.of_json({"a": 1, "b": [0.1]}) == digest.of_json(json.loads('{"b": [0.1], "a": 1}'))


@pytest.mark.parametrize("version", sorted(golden_checkpoint.DIRECTORY.iterdir()), ids=lambda path: path.name)
def test_checkpoints_of_earlier_versions_open(version, tmp_path):
    """For training (weights, optimizer, data iterator) and for inference, bit for bit."""
    shutil.copytree(version, tmp_path / "run")
    expected = golden_checkpoint.expected()
    metas = []
    reader = checkpoint.Checkpointer(tmp_path / "run", CheckpointConfig())
    restored = reader.restore_newest(golden_checkpoint.shapes(), metas.append)
    assert restored.data == golden_checkpoint.DATA and metas[0]["data"] == golden_checkpoint.FINGERPRINT
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
    config, model_config, params, _ = weights.load_for_inference(tmp_path / "run")
    assert (config.seed, model_config.hidden_size) == (5, 8)
    jax.tree.map(np.testing.assert_array_equal, params, expected.params)


def test_several_processes_are_told_that_a_failed_save_ends_them(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(checkpoint.Checkpointer, "_open", lambda self: None)
    for count, policy in ((1, "continue"), (2, "stop"), (2, "continue")):
        monkeypatch.setattr(jax, "process_count", lambda count=count: count)
        checkpoint.Checkpointer(tmp_path, CheckpointConfig(on_failure=policy), said.append)
    assert len(said) == 1 and "ends the run" in said[0]
