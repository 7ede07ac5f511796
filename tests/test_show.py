"""`python -m anyorder_jax.data.show` prints units, tokens and a drawn mask of a recorded episode."""

import sys

import pytest

import shop
from anyorder_jax import task
from anyorder_jax.config import defaults, freeze, to_json
from anyorder_jax.data import show, sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_episode
from corridor import BPE_DIRECTORY

LEVEL = "BabyAI-GoToObj-v0"


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """One expert episode in a file."""
    environment = registry.make_environment(LEVEL)
    path = tmp_path_factory.mktemp("episodes") / "shard.jsonl"
    path.write_bytes(sources.encode(play_episode(environment, seed=3)))
    return path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["show", *map(str, arguments)])
    show.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("profile", ["joint", "attributes"])
def test_prints_every_unit_and_what_is_hidden(monkeypatch, capsys, shard, profile):
    printed = run(monkeypatch, capsys, shard, "--profile", profile, "--order", "inverse")
    assert f"trajectory {LEVEL}/3" in printed and "order inverse" in printed
    tokens = 50 if profile == "joint" else 148
    assert printed.count(f"({tokens} tokens)") == printed.count("\naction") + 1
    assert "\n  go to a" in printed or "\n  go to the" in printed
    assert "?forward" in printed or "?left" in printed or "?right" in printed
    assert max(map(len, printed.splitlines()[3:])) <= show.WIDTH


def test_window(monkeypatch, capsys, shard):
    assert run(monkeypatch, capsys, shard, "--window", 2).count("\nobservation") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--record", 5], "expected a record 5"),
        (["--rate", 2], "masking.rate: expected a probability"),
        (["--order", "casual"], "Did you mean.*causal"),
        (["--tokenizer", "nowhere"], "nowhere is not a directory"),
        (
            ["--granularity", "attribute", "--profile", "other"],
            "data.profile: expected 'joint', 'attributes' or 'words', got 'other'",
        ),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capsys, shard, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, capsys, shard, *arguments)


def test_missing_and_broken_files_are_one_sentence(monkeypatch, capsys, shard, tmp_path):
    with pytest.raises(SystemExit, match="No such file"):
        run(monkeypatch, capsys, tmp_path / "nothing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(SystemExit, match=r"broken\.jsonl:1: broken JSON"):
        run(monkeypatch, capsys, broken)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Ingested episodes of text, a recipe for them, and what a run on them leaves when it begins."""
    folder = tmp_path_factory.mktemp("text")
    shop.write(folder / "data", num_train=6, num_others=2, page_lines=40)
    lines = {"path": str(folder / "data"), "tokenizer": str(BPE_DIRECTORY), "frames": "chat", "context_tokens": 300,
             "row_length": 300, "num_episodes": 0}  # fmt: skip
    body = "\n".join(f"    config.data.{name} = {value!r}" for name, value in lines.items())
    (folder / "recipe.py").write_text(
        "from anyorder_jax.config import defaults\ndef get_config(variant=''):\n    config = defaults(variant)\n"
        f"{body}\n    config.masking.order = 'causal'\n    return config\n", encoding="utf-8",
    )  # fmt: skip
    config = defaults()
    config.data.update(lines)
    config.masking.order = "causal"
    config = freeze(config)
    task.open_task(config).vocabulary.save(folder / "run" / "tokenizer")
    (folder / "run" / "config.json").write_text(to_json(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("named", ["recipe.py", "run", "run/config.json"])
@pytest.mark.parametrize("given", ["", "data", "data/test/shard-00000.jsonl"])
def test_shows_what_a_recipe_or_a_run_draws(monkeypatch, capsys, text, named, given):
    arguments = [str(text / given)] if given else []
    shown = [run(monkeypatch, capsys, *arguments, f"--config={text / named}", f"--seed={n}") for n in range(8)]
    assert len(set(shown)) > 3  # other ends and masks
    for printed in shown:
        assert f"trajectory shop-{8 if 'test' in given else 0}: 13 units" in printed
        assert int(printed.splitlines()[1].split()[0]) <= 300 and "<role>HUMAN</role>\n" in printed
    causal = [printed for printed in shown if "order causal" in printed]
    assert causal and all("\n  | <role>ASSISTANT</role>\n  ?" in printed for printed in causal)


def test_single_keys_change_what_a_recipe_draws(monkeypatch, capsys, text):
    recipe = f"--config={text / 'recipe.py'}"
    printed = run(monkeypatch, capsys, recipe, "--config.data.frames=markers", "--order=any_order", "--rate=0.9")
    assert "<role>" not in printed and "  | \\ngoal:\n" in printed and "order any_order" in printed
    whole = run(
        monkeypatch, capsys, text / "data", recipe, "--config.data.context_tokens=0", "--window=0", "--order=goal"
    )
    assert whole.count("\ntool") == 3


def test_a_shard_is_shown_in_the_frames_of_any_tokenizer(monkeypatch, capsys, text):
    shard = text / "data" / "train" / "shard-00000.jsonl"
    printed = run(monkeypatch, capsys, shard, f"--tokenizer={BPE_DIRECTORY}", "--frames=chat")
    assert "<role>ASSISTANT</role>" in printed and printed.count("\ntool") == 3
    assert "<action>" in run(monkeypatch, capsys, shard)  # the one that is trained for the data, and its markers


def test_every_source_of_a_mixture_is_shown(monkeypatch, capsys, text, tmp_path):
    shop.write(tmp_path / "other", num_train=3, num_others=1)
    keys = ["--config.data.path=", f"--config.data.sources={text}/data:1,{tmp_path}/other:2"]
    for place in ([], [tmp_path / "other"]):
        assert "trajectory shop-0" in run(monkeypatch, capsys, *place, f"--config={text / 'recipe.py'}", *keys)
    shop.write(tmp_path / "stranger", num_train=3, num_others=1)
    with pytest.raises(SystemExit, match="not of the sources of this configuration"):
        run(monkeypatch, capsys, tmp_path / "stranger", f"--config={text / 'recipe.py'}", *keys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=any_ordr"], "Did you mean any_order"),
        (["{}/data", "--config={}/data"], "holds no config.json, so it is no run"),
        (["--config={}/run", "--config.data.window=3"], "is a run, whose settings stand"),
        (["--config={}/recipe.py", "--config.data.windw=3"], "windw"),
        (["{}", "--config={}/recipe.py"], "no .*jsonl"),
    ],
)
def test_a_configuration_that_there_is_not_is_one_sentence(monkeypatch, capsys, text, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, capsys, *(a.format(text) for a in arguments))
    assert "\n" not in capsys.readouterr().err
