"""`scaled_dot_product_attention` as CUDA runs it, on fake tensors: the chosen kernel's outputs and layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vramplan.attention import LEFT_TO_BROADCASTING, MASK_ALIGNMENT, AttentionInput, Choice, Kernel, resolve
from vramplan.attention_tiles import FLASH_ALIGNMENT
from vramplan.catalog.gpus import Gpu
from vramplan.element_types import type_name
from vramplan.measure.cuda_autocast import AUTOCAST
from vramplan.measure.tracker import Opener, Tracker
from vramplan.scenario import DType

aten = torch.ops.aten
functional = torch.nn.functional


class Call(NamedTuple):
    """What attention is computed of."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    dropout: float
    causal: bool
    scale: float | None

    def lowered(self) -> "Call":
        """The call with its inputs as autocast casts them; it has no entry for the kernels' own operations.

        autocast_mode.h casts in the call's argument list, which compilers for x86 evaluate from the last to the first.
        """
        if not torch.is_autocast_enabled("cpu"):
            return self
        dtype = torch.get_autocast_dtype("cpu")
        value, key, query = (tensor.to(dtype) for tensor in (self.value, self.key, self.query))
        return self._replace(query=query, key=key, value=value)


@contextmanager
def sdpa_as_on_cuda(gpu: Gpu, tracker: Tracker) -> Iterator[None]:
    """Inside, attention takes the card's kernel; `tracker.notes` gathers what was chosen and why."""

    def run(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        call = Call(query, key, value, attn_mask, dropout_p, is_causal, scale)
        choice = _choose(gpu, call, enable_gqa=enable_gqa)
        tracker.notes.add(choice)
        return _math(call, enable_gqa) if choice.kernel is Kernel.MATH else _KERNELS[choice.kernel](call)

    with mock.patch.object(functional, "scaled_dot_product_attention", run):
        yield


def _choose(gpu: Gpu, call: Call, *, enable_gqa: bool) -> Choice:
    """Autocast, when on, has the last word on the dtype: sdpa is in its list of 16-bit operations."""
    grouped = call.key.shape[1] != call.query.shape[1]
    if grouped and not enable_gqa:
        return LEFT_TO_BROADCASTING
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else call.query.dtype
    wanted = AttentionInput(
        dtype=DType(type_name(dtype)),
        head_dim=call.query.shape[-1],
        value_dim=call.value.shape[-1],
        grouped=grouped,
        masked=call.mask is not None,
        capability=gpu.capability,
    )
    return resolve(wanted, pinned=_pinned())


def _pinned() -> str:
    """The one kernel that a surrounding `sdpa_kernel` context allows; empty when all are allowed."""
    from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

    allowed = _cur_sdpa_kernel_backends()
    if len(allowed) != 1:
        return ""
    names = {
        SDPBackend.FLASH_ATTENTION: "flash",
        SDPBackend.EFFICIENT_ATTENTION: "efficient",
        SDPBackend.CUDNN_ATTENTION: "cudnn",
        SDPBackend.MATH: "math",
    }
    return names[allowed[0]]


def flash(call: Call) -> Tensor:
    """Flash attention, which takes no mask; what was padded of the heads is cut off again.

    What autocast has cast stays until the kernel has returned, as arguments of the call that pads them.
    """
    lowered = call.lowered()
    size = lowered.query.shape[-1]
    missing = -size % FLASH_ALIGNMENT
    if not missing:
        return flash_of_whole_heads(lowered)
    query, key, value = (functional.pad(tensor, (0, missing)) for tensor in lowered[:3])
    return flash_of_whole_heads(lowered._replace(query=query, key=key, value=value))[..., :size]


def flash_of_whole_heads(call: Call) -> Tensor:
    """Flash attention of heads that are a multiple of 8."""
    query, key, value, _, dropout, causal, scale = call
    out: Tensor = aten._scaled_dot_product_flash_attention(query, key, value, dropout, causal, False, scale=scale)[0]
    return out


def _efficient(call: Call) -> Tensor:
    """As many key heads as query heads; the mask in rows of a multiple of 8 elements (`preprocess_mask`)."""
    query, key, value, mask, dropout, causal, scale = call.lowered()
    repeats = query.shape[1] // key.shape[1]
    key, value = _expanded(key, repeats), _expanded(value, repeats)
    if mask is not None:
        mask = _aligned(_bias(mask, query.dtype)).expand(*query.shape[:3], key.shape[2])
    out: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, _needs_grad(query, key, value), dropout, causal, scale=scale
    )[0]
    return out


def _needs_grad(*tensors: Tensor) -> bool:
    """Whether backward will come, for which a kernel keeps its log-sum-exp."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """attention.cpp `convert_boolean_attn_mask`: a boolean mask as what is added to the scores, in their type."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(float("-inf"), dtype=dtype))


def _aligned(bias: Tensor) -> Tensor:
    """attention.cpp `pad_bias`: rows that are no multiple of 8 elements are copied into longer ones, and sliced.

    The gradient of the bias is not asked for, so backward makes none (attention_backward.cu `bias_requires_grad`).
    """
    if all(stride % MASK_ALIGNMENT == 0 for stride in bias.stride()[:-1]) and bias.stride(-1) == 1:
        return bias
    length = bias.shape[-1]
    return functional.pad(bias, (0, MASK_ALIGNMENT - length % MASK_ALIGNMENT))[..., :length]


def _cudnn(call: Call) -> Tensor:
    """cuDNN's own: grouped heads and a mask as they are, one bias for all heads."""
    query, key, value, mask, dropout, causal, scale = call.lowered()
    if mask is not None:
        mask = _bias(mask, query.dtype)
    out: Tensor = aten._scaled_dot_product_cudnn_attention(
        query, key, value, mask, _needs_grad(query, key, value), dropout, causal, False, scale=scale
    )[0]
    return out


def _math(call: Call, enable_gqa: bool) -> Tensor:
    """The composite that torch itself falls back to, of ordinary operations.

    Without `enable_gqa` fewer key heads are left to the products' broadcasting (Falcon).
    """
    query, key, value, mask, dropout, causal, scale = call.lowered()
    if mask is not None:
        mask = _bias(mask, query.dtype)
    # Autocast is done with the call once it has cast the inputs.
    with torch._C._ExcludeDispatchKeyGuard(AUTOCAST), _PlainTensors():  # type: ignore[no-untyped-call]
        out: Tensor = aten._scaled_dot_product_attention_math(
            query, key, value, mask, dropout, causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    return out


class _PlainTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The composite as native/transformers/attention.cpp runs it on plain tensors: the mask is added to the scores in
    place, and `_safe_softmax` zeroes rows without a position in place.

    For tensor subclasses, which fake tensors are, torch writes another matrix each time (`areAnyTensorSubclassLike`).
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The operation, or what it does in place."""
        if func is aten.add.Tensor:
            return aten.alias.default(args[0].add_(args[1]))
        if func is aten._safe_softmax.default:
            return open_safe_softmax(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _expanded(tensor: Tensor, repeats: int) -> Tensor:
    """Every key head once per query head that shares it, as transformers' `repeat_kv` copies them."""
    if repeats == 1:
        return tensor
    batch, heads, rows, size = tensor.shape
    spread = tensor[:, :, None].expand(batch, heads, repeats, rows, size)
    return spread.reshape(batch, heads * repeats, rows, size)


_KERNELS = {Kernel.FLASH: flash, Kernel.EFFICIENT: _efficient, Kernel.CUDNN: _cudnn}


def _flash_outputs(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """flash_attn/flash_api.cpp `mha_fwd`: output laid out as the query is (`empty_like`); log-sum-exp in fp32; the
    generator's state as two device tensors; no debug mask. The registered fake version puts the state on the meta
    device."""
    query, key = args[0], args[1]
    batch, heads, rows, _ = query.shape
    out = torch.empty_like(query)
    sums = torch.empty((batch, heads, rows), dtype=torch.float32)
    seed = torch.empty((2,), dtype=torch.uint64)
    offset = torch.empty((), dtype=torch.uint64)
    return out, sums, None, None, rows, key.shape[2], seed, offset, torch.empty((0,), dtype=query.dtype)


def _cudnn_outputs(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """attention.cu `_cudnn_attention_forward`: the generator's state first, as two device tensors; output laid out as
    the query is (cudnn/MHA.cpp `alloc_with_matching_layout`); log-sum-exp in fp32."""
    query, key, value = args[:3]
    batch, heads, rows, _ = query.shape
    seed, offset = (torch.empty((), dtype=torch.int64) for _ in range(2))
    out = _laid_out_like(query, value.shape[-1])
    sums = torch.empty((batch, heads, rows, 1), dtype=torch.float32) if args[4] else None
    return out, sums, None, None, rows, key.shape[2], seed, offset, None


def _laid_out_like(query: Tensor, width: int) -> Tensor:
    """An empty [batch, heads, rows, width] whose dimensions lie in memory in the query's order."""
    order = sorted(range(4), key=query.stride, reverse=True)
    shape = (*query.shape[:-1], width)
    dense = torch.empty([shape[place] for place in order], dtype=query.dtype)
    return dense.permute([order.index(place) for place in range(4)])


def _efficient_outputs(tracker: Tracker) -> Opener:
    """attention.cu `_efficient_attention_forward`: output laid out [batch, seq, heads, dim]; log-sum-exp in fp32,
    padded to 32 rows; the generator's state stays on the host."""

    def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        query, _, value, _, needs_grad = args[:5]
        batch, heads, rows, _ = query.shape
        out = torch.empty((batch, rows, heads, value.shape[-1]), dtype=query.dtype).transpose(1, 2)
        sums = torch.empty((batch, heads, -(-rows // 32) * 32 if needs_grad else 0), dtype=torch.float32)
        with tracker.elsewhere():
            seed, offset = torch.empty((), dtype=torch.int64), torch.empty((), dtype=torch.int64)
        return out, sums, seed, offset

    return run


def open_safe_softmax(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """aten/src/ATen/native/transformers/attention.cpp `_safe_softmax`: one operation to dispatch, several inside; rows
    without a position become zeros in place."""
    scores, dim = args[:2]
    weights = torch.softmax(scores, dim, dtype=kwargs.get("dtype"))
    empty = scores.eq(float("-inf"))
    return weights.masked_fill_(empty.all(dim, keepdim=True), 0.0)


def attention_openers(tracker: Tracker) -> dict[Any, Opener]:
    """What runs the attention operations instead of their registered fake versions."""
    return {
        aten._scaled_dot_product_flash_attention.default: _flash_outputs,
        aten._scaled_dot_product_cudnn_attention.default: _cudnn_outputs,
        aten._scaled_dot_product_efficient_attention.default: _efficient_outputs(tracker),
    }
