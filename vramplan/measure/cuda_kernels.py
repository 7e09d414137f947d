"""Memory that CUDA kernels take inside themselves, which dispatch does not see: a rule for each operation.

Sources are torch 2.11-2.13, below aten/src/ATen/native; the sizes are what its CUDA build asks of the allocator.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vramplan.attention_tiles import accumulates, efficient_tile, flash_splits, flash_width
from vramplan.element_types import type_name
from vramplan.measure.tracker import Rule, Temporary
from vramplan.predict.optimizer_step import NORM_CHUNK
from vramplan.predict.reductions import row_sum_buffer
from vramplan.scenario import DType

aten = torch.ops.aten


def temporaries(capability: tuple[int, int], multiprocessors: int) -> dict[Any, Rule]:
    """What kernels of such a card take and give back before they return, by operation."""
    kernels = _Kernels(capability, multiprocessors)
    return {
        aten._safe_softmax.default: _safe_softmax,
        aten._softmax_backward_data.default: _softmax_backward,
        aten.index_put.default: _index_put,
        aten.sum.default: _counted,
        aten.sum.dim_IntList: kernels.row_sum,
        aten.cumsum.default: _counted,
        aten._foreach_norm.Scalar: _foreach_norm,
        aten._scaled_dot_product_flash_attention.default: kernels.flash,
        aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
        aten._flash_attention_backward.default: _samples_backward,
        aten._scaled_dot_product_cudnn_attention_backward.default: _cudnn_backward,
        aten._scaled_dot_product_efficient_attention.default: _efficient,
        aten._scaled_dot_product_efficient_attention_backward.default: kernels.efficient_backward,
    }


class _Kernels:
    """Rules that depend on the card."""

    def __init__(self, capability: tuple[int, int], multiprocessors: int) -> None:
        self._capability, self._multiprocessors = capability, multiprocessors

    def row_sum(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
        """cuda/Reduce.cuh `gpu_reduce_kernel`: what several blocks of threads add up of the same columns."""
        tensor, dims = args[:2]
        columns = tensor.shape[-1] if tensor.dim() else 1
        rows = sorted(dim % tensor.dim() for dim in dims)
        if rows != [*range(tensor.dim() - 1)] or not tensor.is_contiguous():
            return ()
        size = row_sum_buffer(tensor.numel() // columns, columns, self._capability, self._multiprocessors)
        return (Temporary(size, "partial sums"),) if size else ()

    def flash(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
        """transformers/cuda/flash_attn/flash_api.cpp `set_params_splitkv`: parts of the output, to be combined."""
        query, key, _, dropout = (*args, 0.0)[:4]
        batch, heads, rows, dim = query.shape
        splits = 1 if dropout else flash_splits(batch * heads, rows, key.shape[2], dim, self._multiprocessors)
        if splits == 1:
            return ()
        sums = splits * batch * heads * rows * 4
        return Temporary(sums, "flash parts' row sums"), Temporary(sums * flash_width(dim), "flash parts of the output")

    def efficient_backward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
        """transformers/cuda/attention_backward.cu `_efficient_attention_backward`: `delta`, and a workspace.

        In fp32 delta is computed outside the kernel as `(grad_out * out).sum(-1)`, laid out anew.
        """
        grad, query, key, value, *_ = args
        batch, heads, rows, dim = query.shape
        delta = Temporary(batch * heads * rows * 4, "delta")
        tile = efficient_tile(_dtype(query), dim, value.shape[3], self._capability)
        held = tile.workspace(batch * heads, rows, key.shape[2], dim, value.shape[3])
        workspace = Temporary(batch * heads * held, "fp32 gradient accumulators")
        if query.dtype is not torch.float32:
            return delta, workspace
        before = Temporary(grad.numel() * 4, "gradient times output", until="delta")
        return before, Temporary(delta.bytes, "delta, heads last", until="delta"), delta, workspace


def _dtype(tensor: Tensor) -> DType:
    return DType(type_name(tensor.dtype))


def _safe_softmax(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """transformers/attention.cpp `_safe_softmax`: which scores are -inf, and which rows have no other."""
    scores, dim = args[:2]
    rows = scores.numel() // scores.shape[dim]
    return Temporary(scores.numel(), "scores without a position"), Temporary(rows, "rows without a position")


def _softmax_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """cuda/SoftMax.cu `softmax_backward_cuda_out`: `Tensor tmp = grad * output`."""
    grad, output = args[0], args[1]
    kind = torch.promote_types(grad.dtype, output.dtype)
    return (Temporary(grad.numel() * kind.itemsize, "softmax gradient times output"),)


def _counted(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """ReduceOpsUtils.h `make_reduction`: truths are made numbers before they are added up."""
    return (Temporary(args[0].numel() * 8, "truths as numbers"),) if args[0].dtype is torch.bool else ()


def _index_put(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """cuda/Indexing.cu `index_put_with_sort_kernel`: linear indices and their order, as they are and sorted."""
    _, indices, _, accumulate = (*args, False)[:4]
    if not accumulate:
        return ()
    count = max(index.numel() for index in indices if index is not None)
    return tuple(Temporary(count * 8, f"{what} of an indexed sum") for what in ("indices", "order")) * 2


def _foreach_norm(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """cuda/ForeachReduceOp.cu `foreach_tensor_norm_cuda`: a sum for each chunk, as many for all as for the largest."""
    tensors = args[0]
    chunks = max(-(-tensor.numel() // NORM_CHUNK) for tensor in tensors)
    return (Temporary(len(tensors) * chunks * 4, "partial norms"),)


def _flash_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """transformers/cuda/flash_attn/flash_api.cpp `mha_bwd`: row sums and an accumulator of the query's gradient in
    fp32, padded to the kernel's tiles; with grouped queries the gradients of key and value per query head."""
    _, query, key, *_ = args
    batch, heads, rows, dim = query.shape
    padded = -(-rows // 128) * 128
    return (
        Temporary(batch * heads * padded * 4, "flash row sums"),
        Temporary(batch * heads * padded * flash_width(dim) * 4, "flash query gradient accumulator"),
        *_per_query_head(batch * key.shape[2], query, key.shape[1], key),
    )


def _samples_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """The same file's `mha_varlen_bwd`: the same, with room for 128 more rows per sample instead of tiles."""
    _, query, key, _, _, _, offsets, *_ = args
    tokens, heads, dim = query.shape
    rows = tokens + 128 * (offsets.shape[0] - 1)
    return (
        Temporary(heads * rows * 4, "flash row sums"),
        Temporary(heads * rows * flash_width(dim) * 4, "flash query gradient accumulator"),
        *_per_query_head(key.shape[0], query, key.shape[1], key),
    )


def _per_query_head(tokens: int, query: Tensor, kv_heads: int, key: Tensor) -> tuple[Temporary, ...]:
    heads, dim = query.shape[1], query.shape[-1]
    if kv_heads == heads:
        return ()
    size = tokens * heads * dim * key.element_size()
    return tuple(Temporary(size, f"{name} gradient per query head") for name in ("key", "value"))


def _cudnn_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """cudnn_frontend's `CompositeSDPABackwardNode`: one workspace, of an accumulator of the query's gradient and of row
    sums, both in fp32 and without padding. What cuDNN's engine may take beyond it is not known."""
    batch, heads, rows, dim = args[1].shape
    return (Temporary(batch * heads * rows * (dim + 1) * 4, "cuDNN query gradient accumulator and row sums"),)


def _efficient(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """transformers/cuda/mem_eff_attention/kernel_forward.h: outputs in 16 bits of wide heads are added up in fp32."""
    query, _, value, *_ = args
    if not accumulates(_dtype(query), query.shape[3], value.shape[3]):
        return ()
    batch, heads, rows, _ = query.shape
    return (Temporary(batch * heads * rows * value.shape[3] * 4, "fp32 output accumulators"),)
