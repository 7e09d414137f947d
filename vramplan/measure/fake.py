"""A machine of fake tensors: shapes and storages without memory, so that a real step of any size runs anywhere."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from vramplan.catalog.gpus import Gpu
from vramplan.ledger import Component, Phase
from vramplan.measure.attribution import Block
from vramplan.measure.bnb_kernels import fake_opener
from vramplan.measure.cuda_attention import attention_openers, open_safe_softmax
from vramplan.measure.cuda_kernels import temporaries
from vramplan.measure.cuda_rules import CublasWorkspaces
from vramplan.measure.flash_package import SAMPLES_OPENERS
from vramplan.measure.mask_openers import MASK_OPENERS
from vramplan.measure.places import layer_in
from vramplan.measure.tracker import Opener, Rule, Told, Tracker
from vramplan.scenario import Scenario
from vramplan.torch_release import NEWEST
from vramplan.training.build import skeleton

aten = torch.ops.aten
#: How an adapter's matrices come to the device and dtype of the layer (peft 0.21).
_MOVE = "_move_adapter_to_device_of_base_layer"


@contextmanager
def fake_machine() -> Iterator[None]:
    """Every tensor made inside is fake, placed on `cpu` (a CUDA placement needs a CUDA build and a GPU to work)."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(warnings.catch_warnings())
        # bitsandbytes' kernels hand data pointers to a C library, which here does nothing with them.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        warnings.filterwarnings("ignore", message="inner dimension .* is not aligned for fast kernel")
        # what stops an operation is raised, and told once
        stack.enter_context(mock.patch.object(logging.getLogger("torch._subclasses.fake_tensor"), "disabled", True))
        stack.enter_context(mock.patch("bitsandbytes.functional.create_dynamic_map", _dynamic_map))
        # The library's code map for the whole process would be fake outside too.
        stack.enter_context(mock.patch("bitsandbytes.functional.name2qmap", {}))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(mock.patch.object(FakeTensor, "__deepcopy__", _copied, create=True))
        for user in ("dora", "variants", "layer"):
            stack.enter_context(mock.patch(f"peft.tuners.lora.{user}.dequantize_module_weight", dequantized_module))
        stack.enter_context(mock.patch.object(torch.amp.GradScaler, "_maybe_opt_step", _step))
        # transformers 5.17 builds attention masks that it would skip, when it thinks that it is being traced.
        stack.enter_context(mock.patch("transformers.utils.import_utils.is_fake_tensor", new=_no))
        yield


def _step(self: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, state: Any) -> None:
    """torch/amp/grad_scaler.py: the gradients are taken to be finite, so that the step is not skipped."""
    optimizer.step()


def _no(tensor: object) -> bool:
    """A function and no `Mock`, which would keep the tensors it was called with."""
    return False


def dequantized(weight: Any, state: Any = None) -> Tensor:
    """peft's and transformers' `dequantize_bnb_weight`, which knows quantised weights by their class."""
    from bitsandbytes import functional

    if hasattr(weight, "quant_state"):
        plain: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    else:
        if state.SCB is None:
            state.SCB = weight.SCB
        plain = functional.int8_vectorwise_dequant(weight.data, state.SCB)
    return plain


def dequantized_module(module: Any) -> Tensor:
    """peft's `dequantize_module_weight`, likewise."""
    weight: Tensor = module.weight
    quantised = hasattr(weight, "quant_state") or hasattr(weight, "SCB")
    return dequantized(weight, getattr(module, "state", None)) if quantised else weight


def _copied(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """`copy.deepcopy` of a leaf: torch 2.13 copies a fake tensor's attributes too, the mode that it belongs to."""
    if id(self) not in memo:
        state = deepcopy(getattr(self, "quant_state", None))  # of a 4-bit one first (bitsandbytes nn/modules.py)
        copied: Any = self.detach().clone()
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        if state is not None:
            copied.quant_state = state
        memo[id(self)] = copied
    made: Tensor = memo[id(self)]
    return made


def _apply(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` as it treats ordinary tensors (torch 2.13): parameters keep their identity and change their
    data.

    For fake tensors it would swap them instead, which the tracker's weak references forbid.
    """
    if recurse:
        for child in self.children():
            child._apply(function)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in self._parameters.values():
            if parameter is not None:
                parameter.data = function(parameter)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = function(buffer)
    return self


def meta_skeleton(scenario: Scenario) -> Any:
    """The model on the meta device, made outside of fake tensors: bitsandbytes' layers cannot be made of fake ones."""
    with _disable_current_modes():
        return skeleton(scenario)


class FakeTracker(Tracker):  # type: ignore[no-untyped-call]
    """A tracker of a run on the fake machine: bitsandbytes' kernels run open, and numbers read back are all one."""

    def __init__(
        self,
        *,
        vocab: int,
        gpu: Gpu | None = None,
        rules: Mapping[Any, Rule] | None = None,
        padding: bool = False,
        release: str = NEWEST,
    ) -> None:
        """`gpu`: the card that the machine stands for; none for a CPU, where nothing differs from a real run but for
        what CPU kernels take inside themselves, by `rules`. `padding`: the batch's attention mask has zeros.
        `release`: of the PyTorch whose workspaces the libraries take."""
        super().__init__(
            vocab=vocab,
            rules=rules if gpu is None else temporaries(gpu.capability, gpu.multiprocessors),
            openers=self._opened_on(gpu),
            after={} if gpu is None else _workspaces(gpu, release),
            scalars_on_host=gpu is not None,
        )
        self._named = 0
        self._last_layer: int | None = None
        self._padding = padding

    def _opened_on(self, gpu: Gpu | None) -> dict[Any, Opener]:
        """What runs operations that fake tensors cannot run, and on a card those that run otherwise there."""
        openers: dict[Any, Opener] = {
            "bitsandbytes": fake_opener(gpu),
            aten._local_scalar_dense.default: self._read_back,
            aten.is_nonzero.default: self._read_back,
            aten._safe_softmax.default: open_safe_softmax,
            aten._grouped_mm.default: _grouped_mm,
            **MASK_OPENERS,
        }
        if gpu is not None:
            openers |= attention_openers(self) | SAMPLES_OPENERS
            openers[aten.native_dropout.default] = _native_dropout
        return openers

    def enter(self, phase: Phase) -> None:
        """Also forgets which layer's parameter was worked on last."""
        super().enter(phase)
        self._last_layer = None

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Also gives what happened outside every layer since the last name to the layer of this one: a module is named
        right after it was built."""
        super().name(tensor, component, label)
        layer = layer_in(label)
        if self._phase is Phase.LOAD and layer is not None:
            for event in self.events[self._named :]:
                if isinstance(event, Block) and event.place.layer is None:
                    event.place = replace(event.place, layer=layer)
        self._named = len(self.events)

    def _born(self, size: int, tensor: Tensor, func: Any, args: tuple[Any, ...] | None, index: int) -> Block:
        """Also keeps a tensor made of nothing in the optimizer with the parameter that was worked on before it."""
        block = super()._born(size, tensor, func, args, index)
        if self._phase is Phase.STEP:
            if block.place.layer is None and block.op in ("empty", "zeros", "full", "empty_strided", "lift_fresh"):
                block.place = replace(block.place, layer=self._last_layer)
            self._last_layer = block.place.layer
        return block

    def _read_back(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A number read from a tensor: fake tensors have none. Counts are one, which divides nothing by zero.

        A truth is false (a dice roll below a probability of zero, any overflow), but for `all` and `==`, which ask of
        masks whether nothing is masked: so it is, unless samples are padded.
        """
        tensor: Tensor = args[0]
        if tensor.dtype is torch.bool:
            block = self._known(tensor)
            return not self._padding and block is not None and block.op in ("all", "eq")
        return 1.0 if tensor.is_floating_point() else 1

    @contextmanager
    def attaching(self) -> Iterator[None]:
        """Inside, what peft makes for a module belongs to that module; to a card it comes from the host."""
        from peft.tuners.lora import LoraModel
        from peft.tuners.lora.dora import DoraLinearLayer
        from peft.tuners.lora.layer import ParamWrapper
        from peft.tuners.tuners_utils import BaseTunerLayer

        original = LoraModel._create_and_replace
        places, on_card = self.places, self._scalars_on_host

        def create(*args: Any, current_key: str, **kwargs: Any) -> Any:
            with places.inside(current_key), self.elsewhere(on_card):
                return original(*args, current_key=current_key, **kwargs)

        norms = DoraLinearLayer.update_layer

        def measured(*args: Any, **kwargs: Any) -> None:
            with self.elsewhere(False):  # of a matrix on the device
                norms(*args, **kwargs)

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(LoraModel, "_create_and_replace", create))
            stack.enter_context(mock.patch.object(DoraLinearLayer, "update_layer", measured))
            for kind in (BaseTunerLayer, ParamWrapper) if on_card else ():
                stack.enter_context(mock.patch.object(kind, _MOVE, self._landing(getattr(kind, _MOVE))))
            yield

    def _landing(self, move: Callable[..., None]) -> Callable[..., None]:
        """peft's `move` of an adapter, which also copies the matrices that keep their dtype from where they were."""

        def moved(layer: Any, adapter: str, *args: Any) -> None:
            with self.elsewhere(False):
                move(layer, adapter, *args)
                for name in layer.adapter_layer_names:
                    for parameter in _matrices(getattr(layer, name), adapter):
                        block = self._known(parameter)
                        if block is not None and block.elsewhere:
                            parameter.data = parameter.data.clone()

        return moved


def _matrices(adapters: Any, name: str) -> tuple[nn.Parameter, ...]:
    """One adapter's of a layer: a linear layer's parameters, or an embedding's own."""
    if name not in adapters:
        return ()
    one = adapters[name]
    return (one,) if isinstance(one, nn.Parameter) else tuple(one.parameters())


def _workspaces(gpu: Gpu, release: str) -> dict[Any, Told]:
    """Who is told of matrix products: the libraries, which take their workspaces with the first ones."""
    return dict.fromkeys(CublasWorkspaces.PRODUCTS, CublasWorkspaces(gpu, release).after)


def _grouped_mm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Products of groups of rows with a matrix each (experts); the registered fake version knows bfloat16 alone.

    aten/src/ATen/native/GroupedMMUtils.h `create_grouped_gemm_output_tensor`: rows padded to 16 bytes.
    """
    left, right, offsets = (*args, *kwargs.values())[:3]
    if left.dim() == 2 and right.dim() == 2:
        shape = [offsets.shape[0], left.shape[0], right.shape[1]]
    elif left.dim() == 3 and right.dim() == 3:
        shape = [left.shape[0], left.shape[1], right.shape[2]]
    else:
        shape = [left.shape[-2], right.shape[-1]]
    dtype = kwargs.get("out_dtype") or left.dtype
    padded = -(-shape[-1] * dtype.itemsize // 16) * 16 // dtype.itemsize
    strides = [padded, 1] if len(shape) == 2 else [shape[1] * padded, padded, 1]
    return torch.empty_strided(shape, strides, dtype=dtype)


def _native_dropout(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """aten/src/ATen/native/cuda/Dropout.cu `dropout_cuda`: the mask first."""
    kept = torch.empty_like(args[0], dtype=torch.bool)
    return torch.empty_like(args[0]), kept


def _dynamic_map(signed: bool = True, max_exponent_bits: int = 7, total_bits: int = 8) -> Tensor:
    """bitsandbytes' table of 8-bit code values, by its size; computing it needs values."""
    return torch.empty(256)
