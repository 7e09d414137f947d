"""flash_attention_2 on padded samples: tokens are picked out of the batch, attended to as one row, and put back.

transformers 5.17 modeling_flash_attention_utils.py `_flash_attention_forward`. How many of the tokens are padding is
not known: memory is that of a batch where next to none is, the most that it can be.
"""

from vramplan.predict.attention_heads import heads_last
from vramplan.predict.attention_kernels import fused
from vramplan.predict.attention_sdpa import Heads, cast_for_flash
from vramplan.predict.operations import clone, reshape
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import INT32, INT64, Tape, Tensor


def flash_unpadded(t: Tape, query: Tensor, key: Tensor, value: Tensor, spec: Heads) -> Tensor:
    """The attention output [batch, seq, heads, dim], zero where there is padding."""
    query, key, value = cast_for_flash(t, query, key, value)
    batch, _, seq, _ = query.shape
    places = t.new((batch, seq), INT64, "places of tokens")
    offsets = t.new((batch,), INT32, "offsets of samples")
    # the padded ones stay in the variables of the function meanwhile
    k = _picked(t, key, places, "key without padding", copied=spec.heads_first)
    v = _picked(t, value, places, "value without padding", copied=False)
    q = _picked(t, query, places, "query without padding", copied=spec.heads_first)
    out = fused(t, q, k, v, None, "varlen")
    padded = _put_back(t, out, places)
    del out, offsets
    return heads_last(t, padded, copy=False)


def _picked(t: Tape, x: Tensor, places: Tensor, label: str, *, copied: bool) -> Tensor:
    """`_index_first_axis`; what lies heads first in memory is laid out anew by its `reshape`."""
    flat = clone(t, x, "tokens in a row") if copied else reshape(t, x, x.shape)
    saved = saved_for(t, flat, places)
    return own_gradient(t, flat, t.new(flat.shape, flat.kind, label), label + ": gradient among zeros", saved)


def _put_back(t: Tape, x: Tensor, places: Tensor) -> Tensor:
    """`_pad_input`: zeros, into which the tokens are written."""
    saved = saved_for(t, x, places)
    out = t.new(x.shape, x.kind, "attention output with padding")
    return own_gradient(t, x, out, "gradient without padding", saved)
