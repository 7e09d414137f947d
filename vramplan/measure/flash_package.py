"""The flash-attn package as transformers' `flash_attention_2` finds it, on fake tensors: its two functions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from vramplan.attention import Choice, Kernel
from vramplan.attention_tiles import FLASH_ALIGNMENT
from vramplan.measure.cuda_attention import Call, flash_of_whole_heads
from vramplan.measure.tracker import Opener, Tracker

aten = torch.ops.aten
functional = torch.nn.functional


@contextmanager
def flash_package(tracker: Tracker) -> Iterator[None]:
    """Inside, transformers' `flash_attention_2` finds the package.

    It saves and allocates what torch's copy of the same kernels does; transformers' code around it is its own.
    """
    from transformers import PreTrainedModel, modeling_flash_attention_utils, modeling_utils
    from transformers.models.falcon import modeling_falcon

    utils, package = modeling_flash_attention_utils, _Package(tracker)
    process = utils._lazy_define_process_function(package.flash_attn_varlen_func)
    functions = (
        package.flash_attn_func,
        package.flash_attn_varlen_func,
        None,  # with a block table: generation
        utils._pad_input,
        utils._unpad_input,
    )

    def find(*args: Any, **kwargs: Any) -> Any:
        return functions, process

    with (
        mock.patch.object(utils, "lazy_import_flash_attention", find),
        mock.patch.object(modeling_utils, "lazy_import_flash_attention", find),
        mock.patch.object(PreTrainedModel, "_flash_attn_can_dispatch"),
        # imported there where the package is installed
        mock.patch.object(modeling_falcon, "_flash_attention_forward", utils._flash_attention_forward, create=True),
    ):
        yield


@dataclass(frozen=True, slots=True)
class _Package:
    """The package's functions, with those of its parameters that transformers looks for."""

    tracker: Tracker

    def flash_attn_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> Tensor:
        """Rows of one length: [batch, tokens, heads, dim]."""
        self.tracker.notes.add(Choice(Kernel.FLASH, "flash_attention_2"))
        query, key, value = (_widened(tensor).transpose(1, 2) for tensor in (q, k, v))
        call = Call(query, key, value, None, dropout_p, causal, softmax_scale)
        return _cut(flash_of_whole_heads(call).transpose(1, 2), q.shape[-1])

    def flash_attn_varlen_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> Tensor:
        """Samples behind each other: [tokens, heads, dim]."""
        self.tracker.notes.add(Choice(Kernel.FLASH, "flash_attention_2"))
        offsets, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        wide = [_widened(tensor) for tensor in (q, k, v)]
        out: Tensor = aten._flash_attention_forward(*wide, *offsets, *longest, dropout_p, causal, False)[0]
        return _cut(out, q.shape[-1])


def _widened(heads: Tensor) -> Tensor:
    return _Widened.apply(heads) if heads.shape[-1] % FLASH_ALIGNMENT else heads  # type: ignore[no-untyped-call]


def _cut(heads: Tensor, size: int) -> Tensor:
    return heads if heads.shape[-1] == size else _Cut.apply(heads, size)  # type: ignore[no-untyped-call]


class _Widened(torch.autograd.Function):
    """flash_attn_interface.py `FlashAttnFunc`, its inputs: padded in forward, their gradients sliced in backward."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor) -> Tensor:
        """Heads of a multiple of 8: a copy."""
        ctx.size = heads.shape[-1]
        return functional.pad(heads, (0, -ctx.size % FLASH_ALIGNMENT))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """A view."""
        return grad[..., : ctx.size]


class _Cut(torch.autograd.Function):
    """flash_attn_interface.py `FlashAttnFunc`, its output: sliced in forward, its gradient padded in backward."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, size: int) -> Tensor:
        """A view."""
        ctx.missing = heads.shape[-1] - size
        return heads[..., :size]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """A copy."""
        return functional.pad(grad, (0, ctx.missing)), None


def _samples_outputs(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """flash_attn/flash_api.cpp `mha_varlen_fwd`: log-sum-exp in fp32 [heads, tokens]; the generator's state."""
    query = args[0]
    sums = torch.empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    seed, offset = torch.empty((2,), dtype=torch.uint64), torch.empty((), dtype=torch.uint64)
    return torch.empty_like(query), sums, seed, offset, torch.empty((0,), dtype=query.dtype)


#: What runs these operations instead of their registered fake versions.
SAMPLES_OPENERS: dict[Any, Opener] = {
    aten._flash_attention_forward.default: _samples_outputs,
}
