"""A checkpoint with another bit than was written is refused by whatever reads weights; nothing is left behind."""

import shutil

import jax
import numpy as np
import pytest

from anyorder_jax import sharding, state, weights
from anyorder_jax.config import MeshConfig
from anyorder_jax.demo import open_server
from anyorder_jax.evaluate import evaluate
from conversion.__main__ import main
from saved_runs import flip, flip_bits, save_run, write_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`run`: trained whole. `lora`: factors on that run. `adapted`: factors on a model. `orbax`: made by to_orbax."""
    folder = tmp_path_factory.mktemp("saved")
    model = write_model(folder / "model")
    save_run(folder / "run", model)
    save_run(folder / "lora", folder / "run", rank=3)
    save_run(folder / "adapted", model, rank=3)
    assert main(["to_orbax", "--input_path", str(model), "--output_path", str(folder / "orbax")]) == 0
    return folder


def load_as(dtype):
    def load(run):
        model_config = weights.read_model_config(run)
        mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
        weights.load_params(run, model_config, state.abstract_params(model_config, mesh, dtype))

    return load


DOORS = {
    "model.path": load_as("float32"),
    "model.path in another dtype": load_as("bfloat16"),
    "verify": weights.load_for_inference,
    "evaluate": lambda run: evaluate(str(run)),
    "demo": lambda run: open_server(str(run), 0, 1, 0),
}


@pytest.mark.parametrize("name", ["run", "lora", "adapted", "orbax"])
def test_a_flipped_bit_is_refused_by_whatever_computes(saved, tmp_path, name):
    shutil.copytree(saved / name, tmp_path / "run")
    for door in ("model.path", "model.path in another dtype", "verify"):
        DOORS[door](saved / name)
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    flip_bits(folder / "params")
    for door in DOORS.values():
        with pytest.raises(ValueError, match="this checkpoint is damaged"):
            door(tmp_path / "run")
    assert not (tmp_path / "run" / "report").exists()


@pytest.mark.parametrize(
    ("name", "layout"), [("run", "split"), ("lora", "merged"), ("adapted", "split"), ("adapted", "adapter"),
                         ("orbax", "split")],
)  # fmt: skip
def test_a_flipped_bit_is_not_exported(saved, tmp_path, name, layout, capsys):
    shutil.copytree(saved / name, tmp_path / "run")
    arguments = ["to_hf", "--layout", layout, "--output_path"]
    assert main([*arguments, str(tmp_path / "whole"), "--checkpoint", str(saved / name)]) == 0
    assert main(["inspect", str(saved / name)]) == 0
    assert "values: as they were saved" in capsys.readouterr().out
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    flip_bits(folder / "params")
    assert main([*arguments, str(tmp_path / "out"), "--checkpoint", str(tmp_path / "run")]) == 2
    assert f"{folder}" in (error := capsys.readouterr().err) and "damaged" in error
    assert {path.name for path in tmp_path.iterdir()} == {"run", "whole"}
    assert main(["inspect", str(tmp_path / "run")]) == 1
    assert "damaged" in capsys.readouterr().out


def test_factors_on_a_damaged_run_are_not_folded_into_it(saved, tmp_path, capsys):
    """The second run is whole: what it stands on is not."""
    shutil.copytree(saved / "run", tmp_path / "first")
    save_run(tmp_path / "second", tmp_path / "first", rank=3)
    flip_bits(tmp_path / "first" / "checkpoints" / "5" / "params")
    with pytest.raises(ValueError, match=r"first/checkpoints/5: this checkpoint is damaged"):
        weights.load_for_inference(tmp_path / "second")
    arguments = ["to_hf", "--checkpoint", str(tmp_path / "second"), "--layout", "split", "--output_path"]
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert "first/checkpoints/5: this checkpoint is damaged" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


def test_a_bit_anywhere_changes_no_number_in_silence(saved, tmp_path, capsys):
    """Of every file in turn: refused, in one sentence, or (in bytes that nobody reads) the very same weights."""
    shutil.copytree(saved / "run", tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "5"
    whole = weights.load_for_inference(tmp_path / "run")[2]
    arguments = ["to_hf", "--checkpoint", str(tmp_path / "run"), "--layout", "split", "--output_path"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    files = [path for item in ("params", "meta") for path in (folder / item).rglob("*") if path.is_file()]
    num_refused = 0
    for file in files:
        flip(file, 0.5)
        try:
            read = weights.load_for_inference(tmp_path / "run")[2]
            jax.tree.map(np.testing.assert_array_equal, read, whole)
        except ValueError as error:
            num_refused += 1
            assert str(folder) in str(error) and "\n" not in str(error)
        if main([*arguments, str(tmp_path / "out")]) == 0:
            assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected
            shutil.rmtree(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        capsys.readouterr()
        flip(file, 0.5)
    assert num_refused >= 3 and len(files) >= 4
