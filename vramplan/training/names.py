"""Which component every long-lived tensor of a run belongs to."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from vramplan.ledger import Component
from vramplan.training.meter import Meter


def causal_model(model: Any) -> Any:
    """transformers' causal language model, out of peft's wrapper when there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def name_base(module: Any, meter: Meter, *, within: Any = None, prefix: str = "", recurse: bool = True) -> None:
    """Name the base model's tensors: linear matrices, block constants, and the rest; adapters are left out.

    `within` is the whole model when `module` is a part of it at `prefix`.
    """
    model = within or module
    head = output_head(model)
    parts = module.named_modules(prefix=prefix) if recurse else [(prefix, module)]
    nested = False
    for path, part in parts:
        if belongs_to_adapter(path):
            continue
        for name, parameter in part.named_parameters(prefix=path, recurse=False):
            linear = name.endswith("weight") and is_linear(model, part) and part is not head
            meter.name(parameter, Component.WEIGHTS if linear else Component.UNQUANTIZED, name)
            for label, tensor in quant_state_tensors(part, parameter):
                meter.name(tensor, Component.QUANT_STATE, f"{name}.{label}")
                nested |= label == "nested code"
        for name, buffer in part.named_buffers(prefix=path, recurse=False):
            meter.name(buffer, Component.UNQUANTIZED, name)
    if nested:
        name_process_map(meter)
    if head is not None and within is None and getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        meter.name(head.weight, Component.UNQUANTIZED, "embeddings, tied to the head")


def name_process_map(meter: Meter) -> None:
    """Name the 256-entry map that double quantisation makes once per process (bitsandbytes 0.50 functional.py)."""
    from bitsandbytes.functional import name2qmap

    for label, tensor in tensors_in(name2qmap):
        meter.name(tensor, Component.QUANT_STATE, f"{label} code map of the process")


def name_adapters(model: nn.Module, meter: Meter, *, copies: Component = Component.ADAPTERS) -> None:
    """Name what peft attached: adapters, and `copies` of modules that are trained whole."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if belongs_to_adapter(name):
            meter.name(tensor, copies if ".modules_to_save." in name else Component.ADAPTERS, name)


def name_gradients(model: nn.Module, meter: Meter) -> None:
    """Name the gradients that exist now; hooks on the accumulation itself would change how autograd accumulates."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            meter.name(parameter.grad, Component.GRADIENTS, f"{name}.grad")


def name_optimizer(optimizer: Optimizer, meter: Meter) -> None:
    """Name the optimizer's states, its step counters and bitsandbytes' code tables included."""
    for number, state in enumerate(optimizer.state.values()):
        for name, value in tensors_in(state):
            meter.name(value, Component.OPTIMIZER, f"state {number}.{name}")
    for name, value in tensors_in(getattr(optimizer, "name2qmap", {})):
        meter.name(value, Component.OPTIMIZER, f"code map {name}")


def quant_state_tensors(module: Any, parameter: Any) -> Iterator[tuple[str, Tensor]]:
    """The constants that belong to a quantised weight: block constants, their own constants, code tables.

    bitsandbytes 0.50: `Params4bit.quant_state` (QuantState, nested in `state2` with double quantisation); int8 keeps
    the row constants as `weight.SCB` until the first forward moves them to `module.state.SCB`.
    """
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        yield from _of_quant_state(state)
    row_constants = getattr(parameter, "SCB", None)
    if row_constants is None:
        row_constants = getattr(getattr(module, "state", None), "SCB", None)
    if isinstance(row_constants, Tensor) and parameter is getattr(module, "weight", None):
        yield "SCB", row_constants


def _of_quant_state(state: Any) -> Iterator[tuple[str, Tensor]]:
    for name in ("absmax", "code", "offset"):
        value = getattr(state, name, None)
        if isinstance(value, Tensor):
            yield name, value
    if state.state2 is not None:
        for name, value in _of_quant_state(state.state2):
            yield f"nested {name}", value


def tensors_in(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors among a mapping's values, with their keys."""
    for key, value in mapping.items():
        if isinstance(value, Tensor):
            yield str(key), value


def belongs_to_adapter(path: str) -> bool:
    """Whether a parameter or module path is inside one of peft's containers: lora_A, lora_B, ..., modules_to_save."""
    return any(part.startswith("lora_") or part == "modules_to_save" for part in path.split("."))


def output_head(model: Any) -> Any:
    """The base model's output head, out of peft's wrapper where its copy is trained; None for a model without one."""
    return original(model.get_output_embeddings())


def original(module: Any) -> Any:
    """The base's module, out of peft's wrapper where its copy is trained."""
    return getattr(module, "original_module", module)


def is_linear(model: Any, module: Any) -> bool:
    """Whether the module's weight counts as a linear layer of the base model.

    Quantised ones do, or, in a model that is not quantised, every nn.Linear and Conv1D. In a quantised model a plain
    nn.Linear was skipped.
    """
    from transformers.pytorch_utils import Conv1D

    if hasattr(module, "source_cls"):
        return True
    quantized = getattr(model, "hf_quantizer", None) is not None  # a dequantised model has none (transformers 5.17)
    return not quantized and isinstance(module, nn.Linear | Conv1D)
