"""A model of a family outside the table: transformers' own code runs on shapes and writes the tape.

What stands around that code (quantised and adapted linear layers, checkpoints, repeated layers, head and loss) is what
every other family has.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from sys import getrefcount
from typing import TYPE_CHECKING
from weakref import ref

from vramplan.architecture import Architecture
from vramplan.errors import UsageError
from vramplan.ledger import Phase
from vramplan.predict.causal_model import CausalModel, LayerPattern, Outcome
from vramplan.predict.checkpoints import Returned, run_layer
from vramplan.predict.expert_adapters import Parameter
from vramplan.predict.loss import causal_loss
from vramplan.predict.modules import Modules
from vramplan.predict.observed.attention import choose_kernel
from vramplan.predict.observed.observer import TapeObserver
from vramplan.predict.script import Repeated
from vramplan.predict.tape import INT64, Tape, Tensor
from vramplan.scenario import Checkpointing, Scenario
from vramplan.stacks import LossKernel

if TYPE_CHECKING:
    from vramplan.architecture.observed.model import LiveModel


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a decoder layer stands in its group's rounds."""

    group: Repeated
    modules: Modules | None
    """None in every round but the first, which is the only one that runs."""
    opens: bool
    closes: bool


def _nothing() -> None:
    """In place of a reference to what is not there."""


def _shared(tensor: Tensor) -> bool:
    """Whether other tensors have the same memory, such as those that the graph saved."""
    return getrefcount(tensor.storage) > 2


class ObservedModel(CausalModel):
    """The causal language model, read off its own code."""

    def __init__(self, t: Tape, scenario: Scenario) -> None:
        super().__init__(t, scenario)
        self._phase = Phase.LOSS
        places: list[_Place] = []
        for run, group, modules in zip(self.layers, self.groups, self.modules, strict=True):
            last = len(modules) - 1
            places += [_Place(group, own, i == 0, i == last) for i, own in enumerate(modules)]
            places += [_Place(group, None, False, False)] * (len(modules) * (run.times - 1))
        self.places = places
        self.observer = TapeObserver(self.t, partial(choose_kernel, self.scenario, self.t))
        self._open: Repeated | None = None
        """Whose first round is over, which the next layer's call closes: until then the caller holds its input."""
        self._beside: Callable[[], Tensor | None] = _nothing
        """What the last layer returned beside its output, as long as the model's code holds it."""

    @staticmethod
    def _described(architecture: Architecture) -> Architecture:
        """The model's own."""
        return architecture

    def _live(self) -> "LiveModel":
        from vramplan.architecture.observed.model import LiveModel

        s, prefix = self.scenario, self.scenario.architecture.layer_prefix
        wanted = s.method.trains and s.checkpointing is not Checkpointing.OFF
        training = self.t.training
        live = LiveModel(
            s.model.config, s.attention, prefix, self, training=training, checkpointed=wanted, padded=s.padding
        )
        if wanted and not live.checkpoints:
            raise UsageError(
                f"'{s.architecture.family}' has no gradient checkpointing in transformers",
                hint="use checkpointing: false",
            )
        return live

    def forward(self, loss: Phase = Phase.LOSS) -> Outcome:
        """The whole forward with labels."""
        self._phase = loss
        if self.scenario.stack.loss is not LossKernel.TORCH:
            return super().forward(loss)
        s, t = self.scenario, self.t
        ids, labels = (Tensor((s.sequences, s.seq), INT64, None) for _ in range(2))
        result = self._live().forward(ids, labels, self._mask(s.seq))
        t.scope = ""
        return Outcome(*result)

    def hidden_states(self, tokens: int, cache: object = None) -> Tensor:
        """The forward up to the head."""
        ids = Tensor((self.scenario.sequences, tokens), INT64, None)
        hidden: Tensor = self._live().hidden_states(ids, self._mask(tokens))
        return hidden

    def _mask(self, tokens: int) -> Tensor | None:
        """The batch's attention mask, if it comes with one that decides something."""
        s = self.scenario
        if s.attention == "flash_attention_2":
            if s.padding:
                self.t.doubts.add("tokens that flash_attention_2 gathers from padded samples")
            return None
        return Tensor((s.sequences, tokens), INT64, None) if s.masked else None

    def zero_grad(self) -> None:
        """Gradients die; a parameter without one gets no optimizer state either, which is not known beforehand."""
        if any(leaf.grad is None for leaf in self.leaves):
            self.t.doubts.add("optimizer states of parameters that no gradient reaches")
        super().zero_grad()

    # -- what the model's code finds around itself

    def projection(self, layer: int | None, path: str, *, own_code: bool) -> Callable[[Tensor], Tensor] | None:
        """The linear layer at `path`; one with code of its own keeps it where nothing replaces or wraps it."""
        own = self._own(layer)
        found = own.projections.get(path) if own else None
        if found is None or (own_code and found.quantised is None and found.adapter is None):
            return None
        return partial(found, self.t)

    def parameter(self, layer: int | None, path: str) -> Tensor | None:
        """Any other parameter."""
        own = self._own(layer)
        return None if own is None else own.parameter(path)

    def adapts(self, layer: int | None, path: str) -> tuple[str, ...]:
        """Names of the adapted parameters of the module at `path`."""
        own = self._own(layer)
        return tuple(name.rpartition(".")[2] for name in own.adapters if name.rpartition(".")[0] == path) if own else ()

    def adapted(self, layer: int | None, path: str) -> dict[str, Callable[[], Tensor]]:
        """peft's wrappers around the module at `path`, the outermost first."""
        own = self._own(layer)
        assert own is not None
        names = self.adapts(layer, path)[::-1]
        return {name: partial(Parameter(self.t, own, f"{path}.{name}"), self.t) for name in names}

    def _own(self, layer: int | None) -> Modules | None:
        return self.outside if layer is None else self.places[layer].modules

    def runs(self, layer: int) -> bool:
        """Whether this layer is run."""
        return self.places[layer].modules is not None

    def embedded(self, hidden: Tensor) -> None:
        """The hook of `enable_input_require_grads`."""
        s = self.scenario
        if s.method.trains and s.checkpointing is not Checkpointing.OFF and hidden.node is None and self.t.recording:
            self.t.require_grad(hidden)

    def layer(self, number: int, hidden: Tensor, run: Callable[[Tensor], Returned]) -> Returned:
        """One decoder layer; those that are like one that ran hand their input on."""
        t, place = self.t, self.places[number]
        beside = self._beside()
        if self._open is not None:
            group, self._open = self._open, None
            hidden = t.close(group, hidden, beside)
        if place.modules is None:
            return hidden, beside
        if place.opens:
            hidden = t.open(place.group, hidden, beside)
        t.scope = ""
        kind = self.scenario.checkpointing if t.training else Checkpointing.OFF
        out, second = run_layer(t, run, hidden, kind)
        if kind is Checkpointing.OFF and t.recording and second is not None and _shared(second):
            second = None  # the graph itself keeps it, for longer
        self._beside = _nothing if second is None else ref(second)
        if place.closes:
            self._open = place.group
        return out, second

    def logits(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        """The output head; `bias` is its own, also where it shares the embedding's table."""
        t = self.t
        t.enter(self._phase)
        t.script.logits_width(self.scenario.architecture.vocab)
        return self._multiplied(hidden, bias)

    def loss(self, logits: Tensor) -> Tensor:
        """transformers' loss of causal language models."""
        return causal_loss(self.t, logits)

    @contextmanager
    def without_autocast(self) -> Iterator[None]:
        """A region that switches autocast off."""
        before, self.t.autocast = self.t.autocast, None
        yield
        self.t.autocast = before


class UnrolledModel(ObservedModel):
    """The same with every layer run by itself: for layers that hand each other more than their hidden states."""

    @staticmethod
    def _patterns(architecture: Architecture, scenario: Scenario) -> list[LayerPattern]:
        """Every layer once."""
        return [LayerPattern((kind,), 1) for kind in architecture.layers]
