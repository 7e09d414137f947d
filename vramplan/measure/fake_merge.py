"""A merge on fake tensors: what the libraries do to quantised weights and files, in ways that need no values."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from vramplan.measure.fake import dequantized
from vramplan.measure.tracker import Tracker
from vramplan.scenario import Scenario
from vramplan.training.adapter_files import WriteAdapters, write_adapters
from vramplan.training.materialize_fake import four_bit, int8


@contextmanager
def merging(tracker: Tracker, *, card: bool) -> Iterator[WriteAdapters]:
    """Inside, `training.merge` runs on fake tensors, given what is yielded; `card`: they stand for a GPU's, which has a
    host beside it."""
    shapes: dict[str, Tensor] = {}

    def write(scenario: Scenario, folder: Path) -> None:
        with _disable_current_modes():
            shapes.update(write_adapters(scenario, folder, values=False))

    def read(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        # a safetensors file holds larger dtypes first, and names in their order
        stored = sorted(shapes.items(), key=lambda item: (-item[1].itemsize, item[0]))
        return {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in stored}

    with ExitStack() as stack:
        for name, value in {
            "peft.peft_model.load_peft_weights": read,
            "peft.tuners.lora.bnb.dequantize_bnb_weight": dequantized,
            "transformers.integrations.bitsandbytes.dequantize_bnb_weight": dequantized,
            "bitsandbytes.nn.Params4bit": partial(_Merged, partial(_four_bit, card=card)),
            "bitsandbytes.nn.Int8Params": partial(_Merged, partial(int8, card=card)),
            "bitsandbytes.functional.pack_dict_to_tensor": partial(_packed, tracker, card=card),
            # Storages of fake tensors have no address by which tied weights and files could be told.
            "transformers.modeling_utils.remove_tied_weights_from_state_dict": lambda tensors, model: tensors,
            "transformers.modeling_utils.split_torch_state_dict_into_shards": _one_file,
            "transformers.modeling_utils.safe_save_file": lambda tensors, filename, metadata: None,
        }.items():
            stack.enter_context(mock.patch(name, value))
        if card:
            from peft.tuners.lora import layer

            stack.enter_context(mock.patch.object(layer.Linear, "get_delta_weight", _delta))
            stack.enter_context(mock.patch.object(layer.Embedding, "get_delta_weight", _embedding_delta))
        yield write


def _delta(self: Any, adapter: str) -> Tensor:
    """lora/layer.py `Linear.get_delta_weight` on a card: only on the CPU 16-bit adapters are multiplied in fp32."""
    product: Tensor = self.lora_B[adapter].weight @ self.lora_A[adapter].weight
    scale: float = self.scaling[adapter]
    return (product.T if self.fan_in_fan_out else product) * scale


def _embedding_delta(self: Any, adapter: str) -> Tensor:
    """lora/layer.py `Embedding.get_delta_weight` on a card."""
    product: Tensor = self.lora_embedding_B[adapter] @ self.lora_embedding_A[adapter]
    scale: float = self.scaling[adapter]
    return product.T * scale


class _Merged:
    """What `Params4bit(data, **attributes)` and `Int8Params` make of a merged matrix: it is quantised on its way to the
    device."""

    def __init__(self, quantize: Callable[[Any, Tensor], nn.Parameter], data: Tensor, **attributes: Any) -> None:
        self._quantize = quantize
        self._data = data
        self._old = SimpleNamespace(**attributes)

    def to(self, device: Any) -> nn.Parameter:
        """The quantised parameter."""
        return self._quantize(self._old, self._data)


def _four_bit(old: Any, data: Tensor, *, card: bool) -> nn.Parameter:
    """The 4-bit parameter; to a card the matrix comes from the host, and is made there anew."""
    return four_bit(old.module, old, data.clone() if card else data)


def _packed(tracker: Tracker, state: Mapping[str, Any], *, card: bool) -> Tensor:
    """The settings of a quantised matrix as JSON in a tensor, which is made on the host."""
    from bitsandbytes.utils import pack_dict_to_tensor

    with tracker.elsewhere() if card else nullcontext():
        packed: Tensor = pack_dict_to_tensor(state)
    return packed


def _one_file(tensors: Mapping[str, Tensor], **kwargs: Any) -> SimpleNamespace:
    return SimpleNamespace(filename_to_tensors={"model.safetensors": list(tensors)}, is_sharded=False)
