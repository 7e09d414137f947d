"""The fused attention kernels: what they save for backward, and what they take inside themselves on a card.

aten/src/ATen/native/transformers (torch 2.11-2.13): attention.cpp, cuda/attention.cu, cuda/attention_backward.cu.
"""

from typing import NamedTuple

from vramplan.attention import MASK_ALIGNMENT
from vramplan.attention_tiles import FLASH_ALIGNMENT, accumulates, efficient_tile, flash_width
from vramplan.predict.operations import narrow, padded
from vramplan.predict.tape import FLOAT32, INT64, UINT8, Gradients, Kind, Tape, Tensor
from vramplan.predict.template import Accumulators, Derived, stretched
from vramplan.scenario import DType

#: The flash kernels: torch's, and those of the flash-attn package for rows of one length and for samples in a row.
_FLASH = ("flash", "flash_attention_2", "varlen")


class _Call(NamedTuple):
    """One call of a kernel, and the sizes of what it was given."""

    backend: str
    kind: Kind
    batch: int
    heads: int
    seq: int
    head_dim: int
    value_dim: int
    grouped: bool


def fused(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, backend: str) -> Tensor:
    """One kernel, on heads as wide as it takes them: flash's are padded, and its output is cut again."""
    width = query.shape[-1]
    if not pads(t, width, backend):
        return _computed(t, query, key, value, mask, backend)
    package = backend != "flash"  # flash_attn_interface.py `FlashAttnFunc`
    query, key, value = (padded(t, x, FLASH_ALIGNMENT, outside_autograd=package) for x in (query, key, value))
    return narrow(t, _computed(t, query, key, value, mask, backend), width)


def pads(t: Tape, head_dim: int, backend: str) -> bool:
    """Whether heads are copied into wider ones (attention.cpp `pad_last_dim`); other kernels refuse odd heads."""
    return t.cuda and backend in _FLASH and head_dim % FLASH_ALIGNMENT != 0


def _computed(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, backend: str) -> Tensor:
    """Saves query, key, value, its output and the log-sum-exp of each row."""
    batch, heads, seq, head_dim = query.shape
    call = _Call(backend, query.kind, batch, heads, seq, head_dim, value.shape[-1], heads != key.shape[1])
    grad_needed = t.needs_grad(query, key, value)
    bias = None if mask is None else _bias(t, call)
    saved = t.save((query, key, value, bias)) if grad_needed else []
    out, *beside = _outputs(t, call, kept=grad_needed)
    if not grad_needed:
        return out
    saved += t.save((out, *beside))
    shapes = (query.shape, key.shape, value.shape)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        grads = [
            t.new(shape, grad.kind, f"{name} gradient")
            for shape, name in zip(shapes, ("query", "key", "value"), strict=True)
        ]
        if t.cuda:
            _TEMPORARIES[backend](t, call)
        return grads

    return t.record(out, (query, key, value), saved, backward)


def _bias(t: Tape, call: _Call) -> Tensor:
    """A boolean mask as what is added to scores (attention.cpp `convert_boolean_attn_mask`), for one head.

    The efficient kernel wants rows of a multiple of 8 (`preprocess_mask`): others are copied into longer ones.
    """
    bias = t.new((call.batch, 1, call.seq, call.seq), call.kind, "mask as bias")
    if t.cuda and call.backend == "efficient" and call.seq % MASK_ALIGNMENT:
        rows = stretched(call.seq, MASK_ALIGNMENT)
        bias = t.new((call.batch, 1, call.seq, rows), call.kind, "mask as bias, aligned")
    return bias


def _outputs(t: Tape, call: _Call, *, kept: bool) -> list[Tensor]:
    """The output, the log-sum-exp and the state of the generator, which cuDNN's code makes first.

    Only flash makes the log-sum-exp when nothing is kept for backward.
    """
    seeds = _seeds(t) if t.cuda and call.backend == "cudnn" else []
    out = t.new((call.batch, call.heads, call.seq, call.value_dim), call.kind, "attention output")
    rows = stretched(call.seq, 32) if call.backend == "efficient" else call.seq  # cutlass pads to its alignment of 32
    no_sums = t.cuda and call.backend in ("cudnn", "efficient") and not kept
    sums = [] if no_sums else [t.new((call.batch, call.heads, rows), FLOAT32, "log-sum-exp")]
    wide = accumulates(DType(call.kind.name), call.head_dim, call.value_dim)
    if t.cuda and call.backend == "efficient" and wide:
        t.new((call.batch, call.seq, call.heads, call.value_dim), FLOAT32, "fp32 output accumulators")
    return [out, *sums, *(seeds or (_seeds(t) if t.cuda else []))]


def _seeds(t: Tape) -> list[Tensor]:
    return [t.new((), INT64, "philox seed"), t.new((), INT64, "philox offset")]


def _flash_temporaries(t: Tape, call: _Call) -> None:
    """flash_api.cpp `mha_bwd`."""
    _flash(t, call, stretched(call.seq, 128))


def _varlen_temporaries(t: Tape, call: _Call) -> None:
    """flash_api.cpp `mha_varlen_bwd`: room for 128 more rows per sample."""
    _flash(t, call, stretched(call.seq, extra=128))


def _flash(t: Tape, call: _Call, rows: Derived) -> None:
    wide = flash_width(call.head_dim)
    made = [
        t.new((call.batch, call.heads, rows), FLOAT32, "softmax row sums"),
        t.new((call.batch, rows, call.heads, wide), FLOAT32, "query gradient accumulator"),
    ]
    if call.grouped:
        shape = (call.batch, call.heads, call.seq, call.head_dim)
        made += [t.new(shape, call.kind, f"{name} gradient per query head") for name in ("key", "value")]
    del made


def _cudnn_temporaries(t: Tape, call: _Call) -> None:
    """cudnn_frontend `CompositeSDPABackwardNode`: one workspace for the query's gradient and the row sums."""
    t.new((call.batch, call.heads, call.seq, call.head_dim + 1), FLOAT32, "query gradient accumulator and row sums")


def _efficient_temporaries(t: Tape, call: _Call) -> None:
    """attention_backward.cu `_efficient_attention_backward`: delta, and a workspace (kernel_backward.h).

    In fp32 delta is `(grad_out * out).sum(-1)`, computed outside the kernel and laid out anew.
    """
    rows = (call.batch, call.heads, call.seq)
    before = [t.new((*rows, call.value_dim), FLOAT32, "gradient times output")] if call.kind is FLOAT32 else []
    before += [t.new(rows, FLOAT32, "delta, heads last")] if before else []
    delta = t.new(rows, FLOAT32, "delta")
    before.clear()
    tile = efficient_tile(DType(call.kind.name), call.head_dim, call.value_dim, t.capability)
    held = Derived.by(Accumulators(tile, call.heads, call.head_dim, call.value_dim), call.batch, call.seq)
    t.new((call.batch, call.heads, held), UINT8, "fp32 gradient accumulators")
    del delta


_TEMPORARIES = {
    "flash": _flash_temporaries,
    "flash_attention_2": _flash_temporaries,
    "varlen": _varlen_temporaries,
    "cudnn": _cudnn_temporaries,
    "efficient": _efficient_temporaries,
}
