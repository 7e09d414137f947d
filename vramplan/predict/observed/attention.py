"""`scaled_dot_product_attention` as a model's own code calls it."""

from collections.abc import Callable

from vramplan.architecture.observed.observer import Layout
from vramplan.attention import Choice
from vramplan.predict.attention_sdpa import Heads, chosen, kernel
from vramplan.predict.linear import lowered
from vramplan.predict.tape import Kind, Tape, Tensor
from vramplan.scenario import Scenario

#: The kernel for queries of a kind, with or without a mask; None: flash_attention_2.
Choose = Callable[[Kind, Heads, bool], Choice | None]

#: How a kernel's output lies in memory; of the others sequence first.
_LAYOUTS: dict[str, Layout] = {"math": "heads first", "flash": "like query", "cudnn": "like query"}


def attention(
    t: Tape, choose: Choose, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, dropped: bool,
    causal: bool, grouped: bool, heads_first: bool,
) -> tuple[Tensor, Layout]:  # fmt: skip
    """What the kernel that the card takes makes, and how it lies in memory."""
    if t.needs_grad(mask):
        t.doubts.add("attention with a mask that depends on the input")
    value, key, query = (lowered(t, x, what) for x, what in ((value, "value"), (key, "key"), (query, "query")))
    heads, kv_heads = query.shape[1], key.shape[1]
    spec = Heads(
        heads,
        kv_heads,
        query.shape[-1],
        value.shape[-1],
        dropout=dropped,
        causal=causal,
        broadcasts=heads != kv_heads and not grouped,
        heads_first=heads_first,
    )
    choice = choose(query.kind, spec, mask is not None)
    backend = "flash_attention_2" if choice is None else choice.kernel.value
    if choice is not None:
        t.choices.add(choice)
    return kernel(t, query, key, value, mask, spec, backend), _LAYOUTS.get(backend, "sequence first")


def choose_kernel(scenario: Scenario, t: Tape, kind: Kind, spec: Heads, masked: bool) -> Choice | None:
    """The kernel behind `sdpa`; None: flash_attention_2."""
    if scenario.attention == "flash_attention_2":
        return None
    return chosen(scenario, t, kind, spec, masked)
