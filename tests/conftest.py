"""Every test: warnings of ours are errors, rank promotion is off, reused keys raise, eight pretend CPU devices."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests compile much and compute little: a third of the time. Commands that they start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What one test compiled, its neighbours and the commands that they start read back.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="anyorder_jax-tests-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# The same examples every time: a run that fails fails again. HYPOTHESIS_PROFILE=default draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


WAITING = ("test_slurm", "test_gpu_report", "test_processes", "test_faults", "test_lora_runs", "test_ablate")
"""Files whose tests start commands and wait for them: first, so that none of them is alone at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in WAITING)


def pytest_unconfigure(config):
    """Takes the cache away, once (workers inherit it)."""
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if not hasattr(config, "workerinput") and "anyorder_jax-tests-" in cache:
        shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture(scope="session")
def devices():
    """Eight pretend devices."""
    return jax.devices()
