"""Linear layers with the adapter around them, as peft 0.21 runs them."""

from dataclasses import dataclass

from vramplan.predict.dora import with_dora
from vramplan.predict.linear import Adapter, Layer, linear
from vramplan.predict.operations import add, cast, clone, dropout, scale
from vramplan.predict.tape import Tape, Tensor

_A, _B = "lora_A output", "lora_B output"


@dataclass(frozen=True, slots=True)
class Projection(Layer):
    """One linear layer as it runs, with its adapter."""

    adapter: Adapter | None

    def __call__(self, t: Tape, x: Tensor) -> Tensor:
        """The layer's output; locals live as in peft's `Linear4bit.forward` and `Linear.forward`."""
        outer, t.scope = t.scope, self.name
        out = self._adapted(t, x) if self.adapter else self.without_adapter(t, x)
        t.scope = outer
        return out

    def _adapted(self, t: Tape, x: Tensor) -> Tensor:
        """peft/tuners/lora (0.21): bnb.py for quantised layers, layer.py for others."""
        adapter = self.adapter
        assert adapter is not None
        result = self.without_adapter(t, x)
        expected = result.kind
        if self.quantised is not None and self.quantised.bits == 4:
            result = clone(t, result, "output clone")  # "as per Tim Dettmers, we need to defensively clone here"
        # `torch.is_autocast_enabled()` asks about CUDA: under the CPU's autocast peft converts all the same
        converts = self.quantised is None or t.autocast is None or not t.cuda
        wide = cast(t, x, adapter.a.kind, "adapter input") if converts else x
        if adapter.magnitude is not None:
            result = with_dora(t, wide, result, self, adapter)
            return cast(t, result, expected, "output") if converts else result
        delta = self._delta(t, wide, adapter)
        if self.quantised is None:
            result = add(t, result, delta, "output with adapter")
            del delta  # an expression in layer.py, a variable in bnb.py
            return cast(t, result, expected, "output")
        if converts:
            delta = cast(t, delta, expected, "adapter output")
        return add(t, result, delta, "output with adapter")

    @staticmethod
    def _delta(t: Tape, x: Tensor, adapter: Adapter) -> Tensor:
        if adapter.drops:
            return scale(t, linear(t, linear(t, dropout(t, x), adapter.a, None, _A), adapter.b, None, _B))
        return scale(t, linear(t, linear(t, x, adapter.a, None, _A), adapter.b, None, _B))
