"""`scaled_dot_product_attention`, whose output lies in memory as its kernel leaves it."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions
from vramplan.architecture.observed.handles import Handles

FUNCTIONS = Functions()

_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


@FUNCTIONS.add("scaled_dot_product_attention")
def _attention(handles: Handles, call: Call) -> Any:
    given = call.named(*_ARGUMENTS)
    query, value = given["query"], given["value"]
    handle, layout = handles.observer.attention(
        handles.of(query), handles.of(given["key"]), handles.of(value), handles.optional(given.get("attn_mask")),
        dropped=bool(given.get("dropout_p")), causal=bool(given.get("is_causal")),
        grouped=bool(given.get("enable_gqa")), heads_first=query.is_contiguous(),
    )  # fmt: skip
    shape = (*query.shape[:-1], value.shape[-1])
    out = handles.low(torch.empty(shape, dtype=query.dtype, device="meta"))
    if layout == "sequence first" or (layout == "like query" and not query.is_contiguous()):
        batch, heads, seq, dim = shape
        out = torch.empty((batch, seq, heads, dim), dtype=out.dtype, device="meta").transpose(1, 2)
    return handles.give(out, handle)
