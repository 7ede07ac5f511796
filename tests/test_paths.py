"""Paths and names as typed: one rule at every door, places that a run remembers, recipes by name, UTF-8 everywhere."""

import ast
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from anyorder_jax import ablate, collected, files, paths, provenance, recipes, run_directory, task
from anyorder_jax import config as configuration
from anyorder_jax.config import Config, DataConfig, defaults, freeze_typed
from anyorder_jax.data import sources
from anyorder_jax.training.resuming import refuse_other_run

ROOT = Path(__file__).parents[1]
DOORS = {
    "anyorder_jax.evaluate": ("--checkpoint=~no one/x",),
    "anyorder_jax.demo": ("--checkpoint=~no one/x",),
    "anyorder_jax.collect": ("--env=E", "--num_episodes=1", "--output_dir=~no one/x"),
    "anyorder_jax.ablate": ("--suite=orders", "--output_dir=~no one/x", "--list"),
    "anyorder_jax.data.show": ("~no one/x",),
    "anyorder_jax.data.join": ("part", "--output_dir=~no one/x"),
    "anyorder_jax.fit": ("--config=any_order", "--target=cpux1", "--config.model.path=~no one/x"),
    "anyorder_jax.generate": ("--checkpoint=~no one/x", "--input=episode.json", "--ask=action"),
    "anyorder_jax.ingest": ("--input=logs.jsonl", "--output_dir=~no one/x"),
    "anyorder_jax.export_episodes": ("--input=~no one/x", "--output=y", "--format=atif"),
    "anyorder_jax.environments.toolbench.sample": ("--output_dir=~no one/x",),
    "anyorder_jax.environments.webarena.setup": ("--output_dir=~no one/x",),
    "anyorder_jax.evaluation.recompute": ("~no one/x",),
    "anyorder_jax.train": ("--config=any_order", "--workdir=~no one/x"),
    "conversion": ("inspect", "~no one/x"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory and a home directory, both empty."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


# -- the rule --------------------------------------------------------------------------------------


def test_what_is_typed_becomes_absolute(here):
    for typed, meant in (
        ("~/runs/x", "home/runs/x"),
        ("~", "home"),
        ("runs/./x/", "here/runs/x"),
        ("../runs/x", "runs/x"),
        ("a/../../b", "b"),
        (str(here / "c" / ".." / "d"), "d"),
        ("./~", "here/~"),
        (Path("with space"), "here/with space"),
    ):
        assert paths.absolute(typed) == str(here / meant), typed


@pytest.mark.parametrize("path", ["", "gs://bucket/a/../b", "s3://bucket/~", "file:///a"])
def test_urls_and_nothing_stay(path):
    assert paths.absolute(path) == path


def test_a_parent_behind_a_link_is_where_the_link_leads(here):
    (here / "disk" / "runs").mkdir(parents=True)
    Path("link").symlink_to(here / "disk" / "runs")
    assert paths.absolute("link/../x") == str(here / "disk" / "x")
    assert paths.absolute("link/x") == str(here / "here" / "link" / "x")


@pytest.mark.parametrize("module", DOORS)
def test_every_command_expands_the_home_directory(module, tmp_path):
    """Told apart by the home of a user that there is not: only a command that expands ~ can refuse it."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *DOORS[module]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode and "is written ./~no one/x" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_every_path_of_a_configuration_is_settled(here):
    config = defaults()
    for key in configuration.path_keys():
        section, name = key.split(".")
        config[section][name] = f"~/{key}"
    frozen = freeze_typed(config)
    for key in configuration.path_keys():
        section, name = key.split(".")
        weight = ":1.0" if key == "data.sources" else ""  # folders with their shares
        assert getattr(getattr(frozen, section), name) == str(here / "home" / key) + weight
    assert freeze_typed(defaults()).data.cache_dir == str(here / "here" / "data")
    for section, name in (("checkpoint", "remote"), ("data", "path")):
        config[section][name] = "gs://bucket/x"
        assert getattr(getattr(freeze_typed(config), section), name) == "gs://bucket/x"
    config.model.path = "gs://bucket/x"  # read file by file: it would be looked for in a folder "gs:"
    with pytest.raises(ValueError, match=r"config\.model\.path: gs://bucket/x: expected a path on a disk"):
        freeze_typed(config)
    config.model.path = "~no one/x"
    with pytest.raises(ValueError, match=r"config\.model\.path: ~no one/x: expected ~"):
        freeze_typed(config)


def test_no_path_of_a_configuration_is_forgotten():
    named = {
        f"{section.name}.{field.name}"
        for section in dataclasses.fields(Config)
        if dataclasses.is_dataclass(getattr(Config(), section.name))
        for field in dataclasses.fields(getattr(Config(), section.name))
        if set(field.name.split("_")) & {"path", "dir", "tokenizer", "remote", "file", "folder", "sources"}
    }
    assert named == set(configuration.path_keys())


def test_a_command_to_copy_survives_a_shell():
    arguments = ["--checkpoint=/a b/it's $HOME", "--suite=report"]
    assert shlex.split(paths.command("anyorder_jax.evaluate", *arguments)) == [
        "python", "-m", "anyorder_jax.evaluate", *arguments,
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError) as caught:
        run_directory.find("/nowhere/my run")
    assert "'--workdir=/nowhere/my run'" in str(caught.value)


# -- what a run remembers --------------------------------------------------------------------------


def episodes(directory, seed=0):
    """A collection of no episodes, told apart by the name of its one shard. Returns what its runs remember of it."""
    shard = sources.Shard(f"train/{seed}.jsonl", 0, 0, 0, "", (0, 0))
    sources.write_manifest(directory, sources.Manifest("E", {"seed": seed}, {"train": (shard,)}))
    return {"shards_sha256": provenance.shards_digest(sources.read_manifest(directory))}


def test_episodes_are_found_where_the_run_remembers_them_and_beside_it(here):
    data = DataConfig(environment="E", cache_dir=str(here / "old" / "data"))
    config, name = Config(data=data), collected.directory_of(data).name
    remembered = episodes(here / "old" / "data" / name)
    run = here / "new" / "runs" / "x"
    assert provenance.with_data_of(config, run, remembered) == config
    (here / "old").rename(here / "new")
    episodes(run.parent / "data" / name, seed=1)  # nearer, but others
    found = provenance.with_data_of(config, run, remembered).data
    assert collected.directory_of(found) == here / "new" / "data" / name
    named = Config(data=DataConfig(path=str(here / "old" / "data" / name)))
    assert provenance.with_data_of(named, run, remembered).data.path == str(here / "new" / "data" / name)
    relative = Config(data=DataConfig(environment="E"))  # a run of version 0.1.0, seen from another directory
    assert provenance.with_data_of(relative, run, remembered).data.cache_dir == str(here / "new" / "data")


def test_episodes_that_cannot_lie_where_they_lay_may_be_collected_beside_the_run(here, monkeypatch):
    config = Config(data=DataConfig(environment="E", cache_dir="/proc/other machine/data"))
    run, nothing = here / "runs" / "x", {"shards_sha256": ""}
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != Path("/proc"))  # root may write anywhere
    assert provenance.with_data_of(config, run, nothing).data.cache_dir == str(here / "runs" / "data")
    remembered = Config(data=DataConfig(environment="E", cache_dir=str(here / "data")))
    assert provenance.with_data_of(remembered, run, nothing) == remembered


def test_episodes_that_are_nowhere_are_told_with_the_command_that_collects_them(here):
    data = DataConfig(cache_dir="my data", num_episodes=7, noise=0.25)
    with pytest.raises(FileNotFoundError) as caught:
        task.open_task(Config(data=data))
    words = shlex.split(str(caught.value).split("`")[1])
    wanted = {"--env=BabyAI-GoToObj-v0", "--num_episodes=7", "--num_test_episodes=200", "--noise=0.25"}
    assert wanted | {f"--output_dir={here}/here/my data/BabyAI-GoToObj-v0-7-200-200-noise0.25"} < set(words)


def test_a_moved_run_resumes_and_another_model_is_refused(here):
    def config(model_path, cache_dir):
        values = defaults()
        values.model.path, values.data.cache_dir = model_path, cache_dir
        return freeze_typed(values)

    fingerprint = {"shards_sha256": "1"}
    run = here / "new" / "runs" / "x"
    for folder in ("runs/first", "mini"):
        (here / "new" / folder).mkdir(parents=True)
    meta = {"config": dataclasses.asdict(config(str(here / "old" / "mini"), "data")), "data": fingerprint}
    refuse_other_run(config(str(here / "new" / "mini"), "~/data"), meta, fingerprint, run)
    with pytest.raises(ValueError, match=r"model\.path: .*old/mini' -> .*runs/first"):
        refuse_other_run(config(str(here / "new" / "runs" / "first"), "data"), meta, fingerprint, run)
    older = json.loads(json.dumps(meta))
    older["config"]["model"]["path"], older["config"]["data"]["cache_dir"] = "../new/mini", "data"
    refuse_other_run(config(str(here / "new" / "mini"), "data"), older, fingerprint, run)


# -- recipes and suites ----------------------------------------------------------------------------

RECIPE = "from anyorder_jax.config import defaults\n\n\ndef get_config(variant=''):\n    return defaults(variant)\n"


def test_recipes_and_suites_are_found_by_name_from_anywhere(here):
    assert list(configuration.recipes()) == sorted(file.stem for file in (ROOT / "configs").glob("*.py"))
    ours = str(ROOT / "configs" / "any_order.py")
    for typed in ("any_order", "any_order.py", "configs/any_order.py", "configs/any_order", ours):
        assert recipes.find_recipe(typed) == ours
        assert recipes.find_recipe(typed + ":smoke") == ours + ":smoke"
    for typed in ("orders", "configs/ablations/orders.py", "ablations/orders"):
        assert recipes.find_suite(typed) == str(ROOT / "configs" / "ablations" / "orders.py")
    with pytest.raises(ValueError, match=r"any_ordr is no file, .*causal_sft.*Did you mean any_order"):
        recipes.find_recipe("any_ordr:smoke")
    with pytest.raises(ValueError, match="elsewhere/any_order is no file"):
        recipes.find_recipe("elsewhere/any_order")


def test_files_beside_the_user_come_first(here):
    for name in ("mine.py", "any_order.py"):
        Path(name).write_text(RECIPE, encoding="utf-8")
        assert recipes.find_recipe(f"{name}:smoke") == f"{here}/here/{name}:smoke"
    Path(here, "home", "mine.py").write_text(RECIPE, encoding="utf-8")
    argv = ["train", "--config", "~/mine.py", "--config.seed=1", "--workdir=x"]
    assert recipes.in_arguments(argv) == ["train", "--config", f"{here}/home/mine.py", "--config.seed=1", "--workdir=x"]


def test_a_suite_finds_its_recipes_beside_its_file(here):
    """Seen from another directory: first beside the suite and above it, then from here, then by name."""
    suite, recipe = here / "project" / "suites" / "mine.py", here / "project" / "recipes" / "own.py"
    for file in (suite, recipe, here / "here" / "near.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RECIPE, encoding="utf-8")
    (here / "project" / "mini").mkdir()
    suite.write_text(
        "from anyorder_jax.evaluation.suite import Suite\n\n\ndef get_suite():\n"
        "    return Suite('?', {'own': ('--config=recipes/own.py:smoke', '--config.model.path=mini'),\n"
        "                       'near': ('--config=near.py',), 'ours': ('--config=configs/any_order.py',)}, (0,))\n",
        encoding="utf-8",
    )
    loaded = ablate.load_suite(str(suite))
    found = {name: ablate.located(loaded, loaded.arguments(name, 0, here)) for name in loaded.variants}
    assert found == {
        "own": [f"--config={recipe}:smoke", f"--config.model.path={here}/project/mini"],
        "near": [f"--config={here}/here/near.py"],
        "ours": [f"--config={ROOT}/configs/any_order.py"],
    }


def test_what_is_installed_holds_recipes_and_suites(tmp_path):
    """The wheel, built from a copy of what belongs to it."""
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml needs it: pip install -e .[dev]")
    names = ("anyorder_jax", "conversion", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
    copy = "tar c --exclude=__pycache__ " + " ".join(names) + f" | tar x -C {shlex.quote(str(tmp_path))}"
    subprocess.run(["bash", "-c", copy], cwd=ROOT, check=True)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    expected = {f"anyorder_jax/{file.relative_to(ROOT)}" for file in (ROOT / "configs").rglob("*.py")}
    code = {str(file.relative_to(ROOT)) for room in names[:2] for file in (ROOT / room).rglob("*.py")}
    assert expected | code <= held
    ask = "from anyorder_jax import recipes; print(recipes.find_recipe('any_order'), recipes.find_suite('orders'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", ask]
    done = subprocess.run(command, cwd=tmp_path / "dist", env=environment, capture_output=True, encoding="utf-8")
    folder = tmp_path / "installed" / "anyorder_jax" / "configs"
    assert done.stdout.split() == [str(folder / "any_order.py"), str(folder / "ablations" / "orders.py")], done.stderr


# -- letters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["anyorder_jax", "conversion", "benchmarks"])
def test_every_text_file_says_its_encoding(room):
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert not _is_in_the_locales_encoding(node), f"{file}:{node.lineno}: say encoding='utf-8'"


def _is_in_the_locales_encoding(call):
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & given.keys())
    is_builtin = isinstance(call.func, ast.Name)
    if name != "open" or not (is_builtin or len(call.args) < 2):
        return False
    modes = [*call.args[is_builtin : 1 + is_builtin], *filter(None, [given.get("mode")])]
    text = "".join(mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str))
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    return (
        "b" not in text and (is_builtin or "w" in text or not call.args) and owner not in ("os", "tensorstore", "self")
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_letter_that_a_terminal_does_not_have_ends_no_command(encoding, tmp_path):
    suite = (
        "from anyorder_jax.evaluation.suite import Suite\n\n\n"
        "def get_suite():\n    return Suite('?', {'模型': ()}, (0,))\n"
    )
    (tmp_path / "suite.py").write_text(suite, encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "anyorder_jax.ablate", f"--suite={tmp_path}/suite.py", "--list"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0 and rb"\u6a21\u578b" in done.stdout, done.stderr


def test_every_command_accepts_any_letter():
    for module in DOORS:
        file = ROOT / module.replace(".", "/")
        source = (file / "__main__.py" if file.is_dir() else file.with_suffix(".py")).read_text(encoding="utf-8")
        assert "terminal.accept_any_letter()" in source, module
    mains = {str(file.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__main__")
             for room in ("anyorder_jax", "conversion") for file in (ROOT / room).rglob("*.py")
             if '\nif __name__ == "__main__":' in file.read_text(encoding="utf-8")}  # fmt: skip
    nobody_types = {"anyorder_jax.environments.serving", "anyorder_jax.environments.web.keeper"}  # a server starts them
    assert mains - nobody_types == set(DOORS)


def test_a_name_that_is_no_text_of_the_locale_is_written_with_its_bytes(tmp_path):
    """What Python makes of a file's name under LC_ALL=C: bytes that it could not read, kept."""
    environment = {
        **os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    program = (
        "import sys; from anyorder_jax import terminal; terminal.accept_any_letter(); print(sys.argv[1], '\\u6a21')"
    )
    done = subprocess.run([sys.executable, "-X", "utf8=0", "-c", program, "é"], env=environment, capture_output=True)
    assert done.stdout.strip() == "é ".encode() + rb"\u6a21", done.stderr
    name = "modèle".encode().decode("ascii", "surrogateescape")
    files.write_whole(tmp_path / "page.html", name)
    assert (tmp_path / "page.html").read_bytes() == "modèle".encode()
