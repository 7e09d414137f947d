"""A model loaded by transformers' own loader from a checkpoint that isn't there: names and shapes, no values."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import core_model_loading
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    ConversionOps,
    convert_and_load_state_dict_in_model,
    revert_weight_conversion,
)
from transformers.modeling_utils import LoadStateDictConfig, get_total_byte_count
from transformers.pytorch_utils import Conv1D

from vramplan.allocator.rules import WARM_UP_SPARED
from vramplan.scenario import Scenario
from vramplan.training.materialize_fake import quantize_fake
from vramplan.training.meter import Meter
from vramplan.training.names import name_base


def load_fake(model: Any, scenario: Scenario, device: torch.device, meter: Meter, *, capacity: int) -> None:
    """Give every parameter and buffer a fake value in the order and way of `from_pretrained` (transformers 5.17).

    core_model_loading.py `convert_and_load_state_dict_in_model` runs here: it takes the tensors by the checkpoint's
    names, one at a time when they are quantised on arrival, and joins the experts of a mixture; buffers that are not
    saved come last. `capacity` is the card's, 0 when there is none: only on a card does `caching_allocator_warmup` take
    and free one block of about the model's size first.
    """
    if capacity:
        _warm_up(model, capacity)
    dtype = getattr(torch, scenario.dtype)
    loading = LoadStateDictConfig(
        device_map={"": device},
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),
        hf_quantizer=_Quantizer(model.hf_quantizer, card=bool(capacity))
        if getattr(model, "hf_quantizer", None)
        else None,
        weight_mapping=get_model_conversion_mapping(model),
    )
    own = _unquantized(model)
    with _in_this_thread(), _named_as_they_arrive(meter):
        convert_and_load_state_dict_in_model(model, _stored(checkpoint_of(model)), loading)
        unread = {path: own[path] for path, parameter in model.named_parameters() if parameter.is_meta and path in own}
        if unread:  # of a family whose names transformers does not turn back into all that it takes
            convert_and_load_state_dict_in_model(model, _stored(unread), replace(loading, weight_mapping=None))
    model.tie_weights()
    _make_unsaved(model, device, meter)
    model.eval()


@contextmanager
def _named_as_they_arrive(meter: Meter) -> Iterator[None]:
    """Inside, what the loader puts into a module is named at once: what was made for it belongs to its layer."""
    put = core_model_loading.set_param_for_module

    def put_and_name(model: Any, name: str, *args: Any, **kwargs: Any) -> None:
        put(model, name, *args, **kwargs)
        path = name.rpartition(".")[0]
        name_base(model.get_submodule(path), meter, within=model, prefix=path, recurse=False)

    with mock.patch.object(core_model_loading, "set_param_for_module", put_and_name):
        yield


def _make_unsaved(model: Any, device: torch.device, meter: Meter) -> None:
    """Make the buffers that no checkpoint holds, with their initial values."""
    for prefix, module in model.named_modules():
        missing = {name: buffer for name, buffer in module._buffers.items() if buffer is not None and buffer.is_meta}
        for name, buffer in missing.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if missing:
            model._init_weights(module)
            name_base(module, meter, within=model, prefix=prefix, recurse=False)


@contextmanager
def _in_this_thread() -> Iterator[None]:
    """Inside, the loader reads one tensor after the other and shows no progress; other threads know no fake tensors."""
    with (
        mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1"),
        mock.patch("transformers.core_model_loading.tqdm", lambda tensors, **_: tensors),
    ):
        yield


def _warm_up(model: Any, capacity: int) -> None:
    """modeling_utils.py `caching_allocator_warmup`: never more than the card less what it spares."""
    places = dict.fromkeys(model.state_dict(), "cuda")
    (size,) = get_total_byte_count(model, places, getattr(model, "hf_quantizer", None)).values()
    torch.empty(int(min(size, capacity - WARM_UP_SPARED) // 2), dtype=torch.float16)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor in a checkpoint: it takes memory where it is put."""

    shape: torch.Size

    def __getitem__(self, part: object) -> "_Stored":
        return self

    def to(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The tensor where it is wanted; whatever it was converted from lay on the host."""
        return torch.empty(self.shape, dtype=dtype, device=device)


def checkpoint_of(model: Any) -> dict[str, Tensor]:
    """The tensors that `save_pretrained` would have written of the meta model before it was quantised, by their names.

    transformers 5.17 `revert_weight_conversion` gives the checkpoint's names, and takes a mixture's experts apart.
    """
    stored: dict[str, Tensor] = revert_weight_conversion(model, _unquantized(model))
    return stored


def _unquantized(model: Any) -> dict[str, Tensor]:
    """What is saved of the model, by its own names, on the meta device."""
    saved: dict[str, Tensor] = {
        path: value for path, value in model.state_dict().items() if path not in model.all_tied_weights_keys
    }
    for path, module in model.named_modules():
        if hasattr(module, "source_cls"):
            shape = (module.out_features, module.in_features)
            shape = shape[::-1] if issubclass(module.source_cls, Conv1D) else shape
            saved[f"{path}.weight"] = torch.empty(shape, dtype=model.config.dtype, device="meta")
    return saved


def _stored(tensors: Mapping[str, Tensor]) -> dict[str, _Stored]:
    return {name: _Stored(tensor.shape) for name, tensor in tensors.items()}


class _Quantizer:
    """What the loader asks of a quantiser, told of fake tensors."""

    pre_quantized = False

    def __init__(self, real: Any, *, card: bool) -> None:
        self.param_needs_quantization = real.param_needs_quantization
        self._operation = _Quantize(card=card)

    def get_quantize_ops(self) -> "_Quantize":
        """The operation for one tensor."""
        return self._operation


class _Quantize(ConversionOps):  # type: ignore[misc]
    """Stands for integrations/bitsandbytes.py `Bnb4bitQuantize` and `Bnb8bitQuantize`."""

    def __init__(self, *, card: bool) -> None:
        self._card = card

    def convert(self, input_dict: Mapping[str, list[Tensor]], *, model: Any, **_: object) -> dict[str, Tensor]:
        """The quantised parameter in place of the one tensor that arrived."""
        return {path: quantize_fake(model, path, arrived, card=self._card) for path, (arrived,) in input_dict.items()}
