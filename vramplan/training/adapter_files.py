"""Saved adapters: a directory as `PeftModel.save_pretrained` writes it, with random values of the scenario's shapes."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from vramplan.scenario import DType, Quant, QuantType, Scenario
from vramplan.training.build import skeleton
from vramplan.training.prepare import attach_adapters, ignore_advice

#: Puts a scenario's adapters into a folder; fake ones need no file for their values.
WriteAdapters = Callable[[Scenario, Path], object]

#: Large enough that merging changes the weights, which are drawn with a deviation of about 0.02.
_DEVIATION = 0.02


def adapter_shapes(scenario: Scenario) -> tuple[Any, dict[str, Tensor]]:
    """peft's configuration of the scenario's adapters, and their tensors by saved name, on the meta device."""
    from peft import get_peft_model_state_dict

    plain = msgspec.structs.replace(scenario, quant=Quant(type=QuantType.NONE, double=False))
    with torch.device("meta"):
        model = attach_adapters(skeleton(plain), plain)
    config = model.peft_config["default"]
    config.inference_mode = True  # as `save_pretrained` writes it
    return config, get_peft_model_state_dict(model)


def write_adapters(scenario: Scenario, folder: Path, *, values: bool = True) -> dict[str, Tensor]:
    """Write the scenario's adapters into `folder`; returns their tensors, on the meta device.

    Without `values` only the configuration is written.
    """
    config, shapes = adapter_shapes(scenario)
    config.save_pretrained(str(folder))
    if values:
        from safetensors.torch import save_file

        generator = torch.Generator().manual_seed(0)
        made = {
            name: torch.empty(tensor.shape).normal_(0.0, _DEVIATION, generator=generator).to(tensor.dtype)
            for name, tensor in shapes.items()
        }
        save_file(made, str(folder / "adapter_model.safetensors"))
    return shapes


def load_adapters(model: Any, scenario: Scenario, folder: Path) -> Any:
    """The model inside peft's wrapper with the adapters saved in `folder`, frozen."""
    from peft import PeftModel

    wanted = scenario.lora.dtype is DType.FLOAT32
    # peft says which device to load the file to: without it, the first GPU of the machine (`infer_device`).
    device = str(next(model.parameters()).device)
    with warnings.catch_warnings():
        ignore_advice()
        adapted = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=wanted, torch_device=device)
    return adapted.requires_grad_(False)  # peft leaves adapters of embeddings trainable
