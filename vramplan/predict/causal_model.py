"""A causal language model on a tape: embeddings, layers (those that repeat run once), norm, head, loss."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from vramplan.architecture import Architecture, Block, WeightKind
from vramplan.ledger import Phase
from vramplan.predict.attention_sdpa import chosen_behind_repeats
from vramplan.predict.balancing import keeping_scores
from vramplan.predict.checkpoints import Returned, run_layer
from vramplan.predict.dropouts import active
from vramplan.predict.embeddings import embed
from vramplan.predict.families import final_norm, known, layer_function, table_kind
from vramplan.predict.fused_head import HeadOutputs, head_outputs, tiled_loss
from vramplan.predict.generic import stand_in
from vramplan.predict.layer_context import Cache, Context
from vramplan.predict.liger import check_liger
from vramplan.predict.liger_loss import liger_loss
from vramplan.predict.linear import linear
from vramplan.predict.loss import causal_loss, chunked_loss, finished_logits
from vramplan.predict.modules import Modules
from vramplan.predict.operations import cast
from vramplan.predict.positions import always_masked, causal_masks, rotary
from vramplan.predict.projections import Projection
from vramplan.predict.saved_modules import training_architecture
from vramplan.predict.script import Repeated
from vramplan.predict.tape import FLOAT32, FLOATS, INT64, Kind, Tape, Tensor
from vramplan.scenario import Checkpointing, Scenario
from vramplan.stacks import LossKernel, Stack


@dataclass(slots=True)
class Outcome:
    """What the model returns: `outputs` in the libraries."""

    loss: Tensor
    logits: Tensor | None


#: A bound on the search alone: no family of transformers 5.17 repeats more than Jamba's 8 layers (`attn_layer_period`).
_LONGEST_PATTERN = 16


@dataclass(slots=True)
class LayerPattern:
    """Layers that follow each other as one pattern, repeated."""

    blocks: tuple[int, ...]
    times: int


class CausalModel:
    """The causal language model on a tape: embeddings, layers, norm, head, loss."""

    def __init__(self, t: Tape, scenario: Scenario) -> None:
        self.t = t
        self.scenario = scenario
        architecture = self._described(scenario.architecture)
        check_liger(scenario)
        architecture = replace(architecture, facts=replace(architecture.facts, dropouts=active(t, scenario)))
        self.architecture = architecture
        self.layers = self._patterns(architecture, scenario)
        self.groups = [Repeated(run.times) for run in self.layers]
        self.modules: list[list[Modules]] = []
        for run in self.layers:
            self.modules.append([Modules(t, scenario, architecture.blocks[i].weights) for i in run.blocks])
        self.running = training_architecture(scenario)
        self.outside = Modules(t, scenario, (*architecture.before, *self.running.after))
        self.leaves = list(t.leaves)

    @staticmethod
    def _described(architecture: Architecture) -> Architecture:
        """The architecture whose layers run here."""
        return architecture if known(architecture) else stand_in(architecture)

    @staticmethod
    def _patterns(architecture: Architecture, scenario: Scenario) -> list[LayerPattern]:
        """The layers, those that are alike run once."""
        return list(_layer_patterns(architecture, scenario))

    def zero_grad(self) -> None:
        """Gradients die."""
        for leaf in self.leaves:
            leaf.grad = None

    def forward(self, loss: Phase = Phase.LOSS) -> Outcome:
        """`...ForCausalLM.forward` with labels; what the head and the loss do belongs to the phase `loss`."""
        t, s = self.t, self.scenario
        hidden = self.hidden_states(s.seq)
        t.enter(loss)
        t.script.logits_width(s.architecture.vocab)
        if s.stack.loss is LossKernel.CHUNKED:
            return Outcome(chunked_loss(t, hidden, self.logits), None)
        if s.stack.loss is LossKernel.TILED:
            return Outcome(tiled_loss(t, hidden, *self._head()), None)
        if s.stack.loss is LossKernel.LIGER:
            return Outcome(liger_loss(t, hidden, self._head()[0], s.architecture.family), None)
        logits = self.logits(hidden)
        return Outcome(causal_loss(t, logits), logits)

    def head_outputs(self, phase: Phase) -> HeadOutputs:
        """The forward with TRL's head as its DPOTrainer asks for it; what the head does belongs to `phase`."""
        hidden = self.hidden_states(self.scenario.seq)
        self.t.enter(phase)
        return head_outputs(self.t, hidden, *self._head(), means=True)

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head on the hidden states of one or all tokens."""
        return finished_logits(self.t, self._multiplied(hidden), self.scenario.architecture.facts)

    def _multiplied(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        """The head's product; `bias` is its own, also where it shares the embedding's table."""
        head = self._own_head()
        if head is not None and head.adapter is not None:
            return head(self.t, hidden)
        weight, own_bias = self._head()
        return linear(self.t, hidden, weight, own_bias or bias, "logits")

    def _head(self) -> tuple[Tensor, Tensor | None]:
        head = self._own_head()
        if head is None:
            return self.outside.table(self.running), None
        assert head.weight is not None, "a head is never quantised"
        return head.weight, head.bias

    def _own_head(self) -> Projection | None:
        """The head; None where it is the embedding's table."""
        if self.running.tied:
            return None
        head = next(w for w in self.running.after if w.kind is WeightKind.HEAD)
        return self.outside.projections[head.path.removesuffix(".weight")]

    def hidden_states(self, tokens: int, cache: Cache | None = None) -> Tensor:
        """`...Model.forward` on `tokens` of each sequence: embeddings, layers, final norm."""
        t, s = self.t, msgspec.structs.replace(self.scenario, seq=tokens)
        context = Context(self.architecture, s.attention, partial(chosen_behind_repeats, s, t), cache=cache)

        def see(kind: Kind) -> None:
            context.position_ids = t.new((1, tokens), INT64, "position_ids")
            if cache is None or not cache.layers:  # one new token sees everything before it
                context.masks = causal_masks(t, s, kind)

        hidden, held = embed(t, self.outside, s, see)
        context.tables = rotary(t, s, table_kind(self.architecture, hidden.kind))
        number, weights = 0, None
        for run, group, modules in zip(self.layers, self.groups, self.modules, strict=True):
            hidden = t.open(group, hidden, weights)
            for block, own in zip(run.blocks, modules, strict=True):
                if cache is not None:
                    cache.current = number
                number += 1
                hidden, weights = self._layer(own, context, self.architecture.blocks[block], hidden)
            hidden = t.close(group, hidden, weights)
        hidden = final_norm(t, self.outside, s.architecture, hidden)
        del held, weights
        return hidden

    def _layer(self, own: Modules, context: Context, block: Block, hidden: Tensor) -> Returned:
        """The layer's output, and what its caller's variable holds besides until the next layer has returned."""
        t, function = self.t, layer_function(context.architecture)
        mine = context.of(block)

        def run(x: Tensor) -> Returned:
            out = function(t, own, mine, block, x)
            weights, mine.returned = mine.returned, None
            return out, weights

        kind = self.scenario.checkpointing if t.training else Checkpointing.OFF
        out, weights = keeping_scores(t, self.scenario, own, lambda x: run_layer(t, run, x, kind), hidden)
        # without a checkpoint the graph itself keeps the weights, for longer
        return out, None if kind is Checkpointing.OFF and t.recording else weights


def called(t: Tape, model: CausalModel, loss: Phase = Phase.LOSS) -> Outcome:
    """The forward pass as the loop makes it: under the Trainer accelerate casts 16-bit outputs to fp32 once autocast is
    over."""
    stack = model.scenario.stack
    autocast = autocast_kind(stack)
    with t.casting(autocast):
        outputs = model.forward(loss)
    if autocast is None or not stack.trainer or outputs.logits is None:
        return outputs
    return Outcome(outputs.loss, cast(t, outputs.logits, FLOAT32, "logits fp32 (accelerate)"))


def autocast_kind(stack: Stack) -> Kind | None:
    """What autocast around the forward pass computes in; None without."""
    return FLOATS[stack.autocast] if isinstance(stack.autocast, str) else None


def _layer_patterns(architecture: Architecture, scenario: Scenario) -> Iterator[LayerPattern]:
    """The first layer alone (its input is the embedding's output), the shortest pattern that repeats, what is left.

    After Liger's loss, which has made its products in forward, backward makes its first one in the last layer: that
    stands alone too.
    Layers that differ in a window that the sequence never leaves are alike, unless they hold other tables or masks.
    """
    kinds = _kinds(architecture, scenario)
    yield LayerPattern((kinds[0],), 1)
    ends_alone = scenario.method.trains and scenario.stack.loss is LossKernel.LIGER
    end = len(kinds) - 1 if ends_alone and len(kinds) > 1 else len(kinds)
    rest = kinds[1:end]
    while rest:
        period, times = _repetition(rest)
        yield LayerPattern(tuple(rest[:period]), times)
        rest = rest[period * times :]
    for kind in kinds[end:]:
        yield LayerPattern((kind,), 1)


def _kinds(architecture: Architecture, scenario: Scenario) -> list[int]:
    own = architecture.facts.rotary_by_window or always_masked(scenario)
    seen: list[Block] = []
    numbers: list[int] = []
    for index, block in enumerate(architecture.blocks):
        window = block.attention.window
        effective = window if 0 < window <= scenario.seq or own else 0
        alike = replace(block, attention=replace(block.attention, window=effective))
        numbers.append(seen.index(alike) if alike in seen else index)
        seen.append(alike)
    return [numbers[i] for i in architecture.layers]


def _repetition(kinds: list[int]) -> tuple[int, int]:
    """(period, times): the repeating pattern at the beginning that covers most layers; of equal ones the shortest."""
    best = (1, 1)
    for period in range(1, min(len(kinds), _LONGEST_PATTERN) + 1):
        times = 1
        while kinds[period * times : period * (times + 1)] == kinds[:period]:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best
