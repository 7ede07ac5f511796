"""The PyTorch model of the tests: the file that exports carry along, `conversion/code/modeling_llada2.py`."""

import functools
import importlib.util
import sys

from conversion.card import CODE


@functools.cache
def modeling():
    """The file as a module, on one core: threads of small models would wait for one another on a busy machine."""
    import torch

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("modeling_llada2", CODE / "modeling_llada2.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(config, tensors):
    """The model of a config.json with weights {published name: array}, in float64."""
    import torch

    model = modeling().LLaDA2MoeModelLM(modeling().LLaDA2MoeConfig(**config)).double().eval()
    model.load_state_dict({name: torch.from_numpy(array).double() for name, array in tensors.items()})
    return model
