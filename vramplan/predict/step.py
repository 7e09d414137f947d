"""One optimizer step from the second on, as timeline parts: the training loop of both stacks over the model's layers."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from vramplan.architecture import Architecture, Block, WeightKind
from vramplan.catalog.gpus import gpu
from vramplan.ledger import Component, Phase
from vramplan.predict.adapters import trainables
from vramplan.predict.checkpoints import run_checkpointed
from vramplan.predict.families import embed, final_norm, known, layer_function, unknown_features
from vramplan.predict.generic import stand_in
from vramplan.predict.loss import causal_loss, chunked_loss, head_logits, liger_loss
from vramplan.predict.modules import Context, Modules
from vramplan.predict.operations import cast
from vramplan.predict.optimizer_step import run_optimizer
from vramplan.predict.positions import attention_kernels, causal_masks, rotary
from vramplan.predict.structure import structured
from vramplan.predict.tape import FLOAT32, FLOATS, INT64, Kind, Tape, Tensor
from vramplan.predict.tape_parts import Group
from vramplan.predict.template import Template
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.stacks import LossKernel, Outputs
from vramplan.timeline import Part


def step_parts(scenario: Scenario, device: Device) -> tuple[Part, ...]:
    """FORWARD, LOSS, BACKWARD and STEP of one steady optimizer step; weights, adapters and states exist already."""
    return structured(scenario, device, lambda probe: StepRun(probe, device).template())


def step_warnings(scenario: Scenario) -> tuple[str, ...]:
    """What the closed form of this step does not know exactly; each sentence points to the trace."""
    return tuple(f"{what}: not exact in closed form, use --engine trace" for what in unknown_features(scenario))


@dataclass(slots=True)
class Outcome:
    """What the model returns: `outputs` in the libraries."""

    loss: Tensor
    logits: Tensor | None


@dataclass(slots=True)
class _Layers:
    """Layers that follow each other as one pattern, repeated."""

    blocks: tuple[int, ...]
    times: int


@dataclass
class StepRun:
    """Runs the training loop of `vramplan.training.step` on a tape."""

    scenario: Scenario
    device: Device
    tape: Tape = field(init=False)

    def __post_init__(self) -> None:
        self.tape = Tape(self.device, *_card(self.scenario))
        self._autocast = _autocast(self.scenario)
        self._held: Outcome | None = None

    def template(self) -> Template:
        """The whole step."""
        t, scenario = self.tape, self.scenario
        t.enter(Phase.FORWARD)
        if scenario.stack.outputs is Outputs.HELD_NEXT:
            self._held = Outcome(t.new((), FLOAT32, "loss of the step before"), self._logits_of_last_step())
        model = _Model(t, scenario)
        t.leaves.clear()
        batches = [self._batch() for _ in range(scenario.grad_accum)]
        for _ in range(scenario.grad_accum):
            self._micro_batch(model)
        t.enter(Phase.STEP)
        run_optimizer(t, scenario, trainables(scenario))
        if scenario.stack.outputs is not Outputs.HELD_NEXT:
            self._held = None
        model.zero_grad()
        batches.clear()
        return t.script.template(scenario.batch, scenario.seq)

    def _logits_of_last_step(self) -> Tensor:
        s = self.scenario
        self.tape.script.logits_width(s.architecture.vocab)
        kind = FLOAT32 if s.stack.upcast.value == "all" else FLOATS[s.dtype.value]
        return self.tape.new((s.batch, s.seq, s.architecture.vocab), kind, "logits of the step before")

    def _batch(self) -> list[Tensor]:
        t, s = self.tape, self.scenario
        made = [t.new((s.batch, s.seq), INT64, what) for what in ("input_ids", "labels")]
        for tensor in made:
            assert tensor.storage is not None
            t.script.name(tensor.storage.block, Component.ACTIVATIONS)
        return made

    def _micro_batch(self, model: "_Model") -> None:
        t = self.tape
        t.enter(Phase.FORWARD)
        if self.scenario.stack.outputs is Outputs.HELD:
            self._held = None
        loss = self._loss(model)
        t.enter(Phase.BACKWARD)
        t.script.keep_for_backward()
        t.backward(loss, t.new((), loss.kind, "gradient of the loss"))
        del loss

    def _loss(self, model: "_Model") -> Tensor:
        outputs = self._call(model)
        if self.scenario.stack.outputs is not Outputs.FREED:
            self._held = outputs
        return outputs.loss

    def _call(self, model: "_Model") -> Outcome:
        """The forward pass; under the Trainer accelerate casts 16-bit outputs to fp32 once autocast is over."""
        t = self.tape
        with t.casting(self._autocast):
            outputs = model.forward()
        if self._autocast is not None and self.scenario.stack.base == "hf-trainer" and outputs.logits is not None:
            return Outcome(outputs.loss, cast(t, outputs.logits, FLOAT32, "logits fp32 (accelerate)"))
        return outputs


def _autocast(scenario: Scenario) -> Kind | None:
    name = scenario.stack.autocast
    return FLOATS[name] if isinstance(name, str) else None


def _card(scenario: Scenario) -> tuple[tuple[int, int], int]:
    """Compute capability and multiprocessors; an A100's where no card is named."""
    if not scenario.gpu:
        return (8, 0), 108
    card = gpu(scenario.gpu)
    return card.capability, card.multiprocessors


class _Model:
    """The causal language model on a tape: embeddings, layers, norm, head, loss."""

    def __init__(self, t: Tape, scenario: Scenario) -> None:
        self.t = t
        self.scenario = scenario
        architecture = scenario.architecture
        if not known(architecture):
            architecture = stand_in(architecture)
        self.architecture = architecture
        self.layers = list(_patterns(architecture, scenario.seq))
        self.groups = [Group(run.times) for run in self.layers]
        self.modules: list[list[Modules]] = []
        for run, group in zip(self.layers, self.groups, strict=True):
            self.modules.append([Modules(t, scenario, architecture.blocks[i].weights) for i in run.blocks])
        self.outside = Modules(t, scenario, (*architecture.before, *architecture.after))
        self.leaves = list(t.leaves)

    def zero_grad(self) -> None:
        """Gradients die."""
        for leaf in self.leaves:
            leaf.grad = None

    def forward(self) -> Outcome:
        """`...ForCausalLM.forward` with labels."""
        t, s = self.t, self.scenario
        hidden = self.hidden_states()
        t.enter(Phase.LOSS)
        t.script.logits_width(s.architecture.vocab)
        if s.stack.loss is LossKernel.CHUNKED:
            return Outcome(chunked_loss(t, hidden, self.logits), None)
        if s.stack.loss is LossKernel.LIGER:
            return Outcome(liger_loss(t, hidden, self._head()[0]), None)
        logits = self.logits(hidden)
        return Outcome(causal_loss(t, logits), logits)

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head on the hidden states of one or all tokens."""
        return head_logits(self.t, hidden, *self._head(), dict(self.scenario.architecture.facts))

    def _head(self) -> tuple[Tensor, Tensor | None]:
        if self.scenario.architecture.tied:
            return self.outside.tensors[self.scenario.architecture.before[0].path], None
        head = next(w for w in self.scenario.architecture.after if w.kind is WeightKind.HEAD)
        projection = self.outside.projections[head.path.removesuffix(".weight")]
        assert projection.weight is not None
        return projection.weight, projection.bias

    def hidden_states(self) -> Tensor:
        """`...Model.forward`: embeddings, layers, final norm."""
        t, s = self.t, self.scenario
        hidden, held = embed(t, self.outside, s)
        context = Context(self.architecture, attention_kernels(s, t, hidden.kind))
        context.position_ids = t.new((1, s.seq), INT64, "position_ids")
        context.masks = causal_masks(t, s, hidden.kind)
        context.cos, context.sin = rotary(t, s, hidden.kind)
        for run, group, modules in zip(self.layers, self.groups, self.modules, strict=True):
            hidden = t.open(group, hidden)
            for block, own in zip(run.blocks, modules, strict=True):
                hidden = self._layer(own, context, self.architecture.blocks[block], hidden)
            hidden = t.close(group, hidden)
        hidden = final_norm(t, self.outside, s.architecture, hidden)
        del held
        return hidden

    def _layer(self, own: Modules, context: Context, block: Block, hidden: Tensor) -> Tensor:
        t, function = self.t, layer_function(context.architecture)

        def run(x: Tensor) -> Tensor:
            return function(t, own, context, block, x)

        return run_checkpointed(t, run, hidden, self.scenario.checkpointing)


def _patterns(architecture: Architecture, seq: int) -> Iterator[_Layers]:
    """The first layer alone (its input is the embedding's output), then the shortest pattern that repeats, then what is left.

    Layers that differ in a window that the sequence never leaves are alike.
    """
    kinds = _kinds(architecture, seq)
    yield _Layers((kinds[0],), 1)
    rest = kinds[1:]
    while rest:
        period, times = _repetition(rest)
        yield _Layers(tuple(rest[:period]), times)
        rest = rest[period * times :]


def _kinds(architecture: Architecture, seq: int) -> list[int]:
    from dataclasses import replace

    seen: list[Block] = []
    numbers: list[int] = []
    for index, block in enumerate(architecture.blocks):
        window = block.attention.window
        effective = window if 0 < window < seq else 0
        alike = replace(block, attention=replace(block.attention, window=effective))
        numbers.append(seen.index(alike) if alike in seen else index)
        seen.append(alike)
    return [numbers[i] for i in architecture.layers]


def _repetition(kinds: list[int]) -> tuple[int, int]:
    """(period, times): the split of the beginning that needs the fewest layers run for the most covered."""
    best = (1, 1)
    for period in range(1, min(len(kinds), 16) + 1):
        times = 1
        while kinds[period * times : period * (times + 1)] == kinds[:period]:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best
