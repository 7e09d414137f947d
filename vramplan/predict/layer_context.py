"""What the layers of a model share while they run: rotary tables, masks, the cache of keys and values, attention."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vramplan.architecture import Architecture, Block
from vramplan.attention import Choice
from vramplan.ledger import Component
from vramplan.predict.attention_eager import eager
from vramplan.predict.attention_sdpa import Heads, sdpa
from vramplan.predict.sinks import eager_with_sinks
from vramplan.predict.tape import Kind, Tape, Tensor
from vramplan.predict.unpadded import flash_unpadded


class Cache:
    """Keys and values of every token so far, one pair per layer (transformers' DynamicCache)."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.current = 0
        """The layer that runs."""
        self.length = 0
        """Tokens remembered after the next update, when there were some before."""
        self.before = 0
        """Tokens remembered until then, where steps that are not written out have added to the first ones."""

    def update(self, t: Tape, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """`torch.cat([self.keys, key])`, then the same for values: the old ones go when the new ones exist.

        A layer with a window shorter than what there is remembers as much as the window (a view of it: the storage of
        a longer prompt stays until the next token).
        """
        old = self.layers.pop(self.current, None)
        if old is not None and self.before > old[0].shape[2] and not window:
            old = self._joined(t, old[0], "keys", self.before), old[1]
            old = old[0], self._joined(t, old[1], "values", self.before)
        keys = self._joined(t, key, "keys", self._tokens(key, window, grows=old is not None))
        old = None if old is None else (keys, old[1])
        values = self._joined(t, value, "values", keys.shape[2])
        del old
        self.layers[self.current] = keys, values
        return keys, values

    def _tokens(self, new: Tensor, window: int, *, grows: bool) -> int:
        if not grows:
            return new.shape[2]
        return window if 0 < window < self.length else self.length

    @staticmethod
    def _joined(t: Tape, new: Tensor, label: str, tokens: int) -> Tensor:
        batch, heads, _, dim = new.shape
        return t.new((batch, heads, tokens, dim), new.kind, label, Component.CACHE)


@dataclass(slots=True)
class Context:
    """What the layers of a model share."""

    architecture: Architecture
    attention: str
    """What computes attention, in the scenario's words."""
    choose: Callable[[Kind, Heads, bool], Choice]
    """The kernel behind `sdpa` for queries of a kind, with or without a mask."""
    tables: dict[bool, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Cosines and sines for layers without and with a sliding window."""
    position_ids: Tensor | None = None
    """Only held: a variable of the model's forward while its layers run."""
    masks: dict[bool, Tensor | None] = field(default_factory=dict)
    """For layers without and with a sliding window."""
    cache: Cache | None = None
    returned: Tensor | None = None
    """Attention weights that the layer that ran last returns beside its output (Falcon)."""

    def of(self, block: Block) -> "Context":
        """What one layer is handed: of the masks only its own, so that the other goes with the last layer it is for."""
        windowed = block.attention.window > 0
        return replace(self, masks={windowed: self.masks.get(windowed)})

    def remember(self, t: Tape, key: Tensor, value: Tensor, window: int = 0) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, these included."""
        return (key, value) if self.cache is None else self.cache.update(t, key, value, window)

    def attend(
        self,
        t: Tape,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: Heads,
        *,
        windowed: bool = False,
        sinks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention's output [batch, seq, heads, dim], and its weights where the library returns them."""
        mask = self.masks.get(windowed)
        if sinks is not None:
            return eager_with_sinks(t, query, key, value, mask, heads, sinks)
        if self.attention == "eager":
            return eager(t, query, key, value, mask, heads)
        if self.attention == "flash_attention_2" and mask is not None:
            return flash_unpadded(t, query, key, value, heads), None
        if self.attention == "flash_attention_2":
            return sdpa(t, query, key, value, mask, heads, self.attention), None
        choice = self.choose(query.kind, heads, mask is not None)
        t.choices.add(choice)
        return sdpa(t, query, key, value, mask, heads, choice.kernel.value), None
