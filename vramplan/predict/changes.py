"""The changes to a scenario that save memory: one table, cheapest in training terms first, each with its price.

`levers` shows which of them save most; `vramplan.plan.advice` looks for the shortest list of them that fits.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from msgspec.structs import replace

from vramplan.optimizers import OPTIMIZERS, optimizer
from vramplan.predict import changes_precision as precision
from vramplan.predict import changes_sizes as sizes
from vramplan.predict.changes_sizes import Variants
from vramplan.predict.liger import LIGER, fuses_loss, in_order
from vramplan.predict.stops import stops
from vramplan.scenario import WITHOUT_SDPA, Checkpointing, Evaluation, QuantType, Scenario
from vramplan.stacks import LayerKernel, LossKernel, Outputs


@dataclass(frozen=True, slots=True)
class Change:
    """One way to save memory."""

    name: str
    """The word in JSON."""
    keeps_training: bool
    """Whether what is learned stays what it was: the same data, tokens per step and trained parameters."""
    cost: str
    """What it costs, in training terms."""
    make: Callable[[Scenario], Variants]
    """The changed scenarios, whether or not they run."""
    label: Callable[[Scenario, Scenario], str]
    """The change from one scenario to another, as people say it."""

    def variants(self, scenario: Scenario) -> Variants:
        """The changed scenarios, the mildest first; empty where the change does not apply, or would stop the run."""
        made = self.make(scenario)
        stopped = made and any(stops(made[-1])) and not any(stops(scenario))  # degrees do not decide it
        return () if stopped else made


def _expandable(scenario: Scenario) -> Variants:
    return () if scenario.expandable_segments else (replace(scenario, expandable_segments=True),)


def _optimizer(scenario: Scenario) -> Variants:
    """The 8-bit optimizer of the same family, where there is one; a paged one before others."""
    now = optimizer(scenario.optimizer)
    if not scenario.method.trains or now.eight_bit:
        return ()
    small = [name for name, kind in OPTIMIZERS.items() if kind.family is now.family and kind.eight_bit]
    small.sort(key=lambda name: not OPTIMIZERS[name].paged)
    return tuple(replace(scenario, optimizer=name) for name in small[:1])


def _attention(scenario: Scenario) -> Variants:
    if scenario.attention not in ("eager", "sdpa:math") or scenario.architecture.family in WITHOUT_SDPA:
        return ()
    return (replace(scenario, attention="sdpa"),)


def _outputs(scenario: Scenario) -> Variants:
    if not scenario.method.trains or scenario.stack.outputs is Outputs.FREED:
        return ()
    return (replace(scenario, stack=replace(scenario.stack, outputs=Outputs.FREED)),)


def _loss(scenario: Scenario) -> Variants:
    return _with_loss(scenario, LossKernel.LIGER) if fuses_loss(scenario.architecture.family) else ()


def _loss_in_chunks(scenario: Scenario) -> Variants:
    """For the families that Liger has no fused loss for."""
    return _with_loss(scenario, LossKernel.CHUNKED) if not fuses_loss(scenario.architecture.family) else ()


def _kernels(scenario: Scenario) -> Variants:
    """All that Liger has for the family, but for experts: it makes gradients of theirs, frozen or not."""
    if not scenario.method.trains or scenario.architecture.family not in LIGER:
        return ()
    has = LIGER[scenario.architecture.family].kernels
    if scenario.architecture.mixes_experts:
        has -= {LayerKernel.MLP}
    wanted = has.union(scenario.stack.kernels)
    if wanted == set(scenario.stack.kernels):
        return ()
    return (replace(scenario, stack=replace(scenario.stack, kernels=in_order(wanted))),)


def _with_loss(scenario: Scenario, kernel: LossKernel) -> Variants:
    if not scenario.method.trains or scenario.stack.loss is not LossKernel.TORCH:
        return ()
    return (replace(scenario, stack=replace(scenario.stack, loss=kernel)),)


def _checkpointing(scenario: Scenario) -> Variants:
    """Of the two kinds the one that keeps less."""
    if not scenario.method.trains or scenario.checkpointing is not Checkpointing.OFF:
        return ()
    kind = Checkpointing.REENTRANT if scenario.quant.type is QuantType.INT8 else Checkpointing.NON_REENTRANT
    return (replace(scenario, checkpointing=kind),)


def reentrant(scenario: Scenario) -> Variants:
    """Layers run without a graph in forward, so that int8 ones keep nothing.

    A non-reentrant checkpoint forgets what an operation gives to `save_for_backward`, and bitsandbytes puts a layer's
    input elsewhere (0.50.2 autograd/_functions.py `MatMul8bitLt`: `ctx.tensors`; a 4-bit layer's holds weights only).
    """
    keeps = scenario.quant.type is QuantType.INT8 and scenario.checkpointing is Checkpointing.NON_REENTRANT
    if not scenario.method.trains or not keeps:
        return ()
    return (replace(scenario, checkpointing=Checkpointing.REENTRANT),)


def _loaded(before: Scenario, after: Scenario) -> str:
    """Which type the base is loaded in, or where that stays, which one bitsandbytes computes in."""
    key = "dtype" if before.dtype is not after.dtype else "compute_dtype"
    return f"{key} {getattr(after, key).value} instead of {getattr(before, key).value}"


def _evaluated(scenario: Scenario) -> Evaluation:
    assert scenario.evaluation is not None
    return scenario.evaluation


def _kind(scenario: Scenario) -> str:
    return " (checkpointing: reentrant)" if scenario.checkpointing is Checkpointing.REENTRANT else ""


def _said(text: str) -> Callable[[Scenario, Scenario], str]:
    return lambda before, after: text


#: Cheapest in training terms first. The reason for each one's place is its cost.
CHANGES: tuple[Change, ...] = (
    Change(
        "expandable-segments",
        True,
        "nothing: a variable before the start (PYTORCH_ALLOC_CONF=expandable_segments:True)",
        _expandable,
        _said("expandable segments (expandable_segments: true)"),
    ),
    Change(
        "double-quant",
        True,
        "nothing measurable: the constants' error is far below the weights' (QLoRA paper, section 3)",
        precision.double,
        _said("double quantisation"),
    ),
    Change(
        "dtype",
        True,
        "nothing of a checkpoint that is 16-bit already, as most are; what was left in fp32 is computed in 16 bits",
        precision.frozen_base,
        _loaded,
    ),
    Change(
        "optimizer",
        True,
        "states in 8 bits: published runs match 32-bit states (arXiv:2110.02861); pages move when memory is short",
        _optimizer,
        lambda before, after: f"optimizer {after.optimizer} instead of {before.optimizer}",
    ),
    Change(
        "attention",
        True,
        "nothing: the same attention in a fused kernel, and faster",
        _attention,
        lambda before, after: f"attention {after.attention} instead of {before.attention}",
    ),
    Change("reentrant", True, "nothing: layers run twice under either kind; the base must enable_input_require_grads, "
           "as peft's preparation has it do", reentrant, _said("reentrant checkpointing instead of non-reentrant")),
    Change(
        "eval accumulate",
        True,
        "evaluation waits for copies to the host, whose RAM the logits take then; preprocess_logits_for_metrics in the "
        "Trainer keeps them from being gathered at all",
        sizes.eval_accumulate,
        lambda before, after: f"eval_accumulation_steps 1 instead of {_evaluated(before).accumulate}",
    ),
    Change(
        "eval batch",
        True,
        "a slower evaluation, of the same samples",
        sizes.eval_batch,
        lambda before, after: f"eval batch {_evaluated(after).batch} instead of {_evaluated(before).batch}",
    ),
    Change("outputs", True, "one line of code: the logits cannot be looked at after the loss", _outputs,
           _said("outputs freed before backward (stack.outputs: freed)")),
    Change(
        "float16",
        True,
        "a smaller range: what passes 65,504 overflows, and without autocast gradients are not scaled, so that small "
        "ones vanish",
        precision.float16,
        _said("float16 instead of bfloat16, which the card does not know"),
    ),
    Change("loss", True, "another package (liger-kernel); the logits are never there as a whole", _loss,
           _said("fused loss (stack.loss: liger)")),
    Change("kernels", True, "another package (liger-kernel); layers keep fewer activations", _kernels,
           lambda before, after: f"Liger's kernels (stack.kernels: {','.join(after.stack.kernels)})"),
    Change("loss in chunks", True, "a few lines of code; the logits are made twice, never as a whole", _loss_in_chunks,
           _said("loss in chunks (stack.loss: chunked)")),
    Change("checkpointing", True, "about a third more compute: every layer's forward runs twice", _checkpointing,
           lambda before, after: f"gradient checkpointing{_kind(after)}"),
    Change(
        "micro-batch",
        True,
        "slower steps: the same samples per step in more, smaller pieces",
        sizes.micro_batch,
        lambda before, after: f"batch {after.batch} with grad_accum {after.grad_accum}",
    ),
    Change("upcast", True, "norms, embeddings and head stay 16-bit, which can make training less stable",
           precision.upcast, _said("no fp32 upcast (stack.upcast: none)")),
    Change("four-bit", False, "a coarser base model: 4 bits per weight instead of 8", precision.four_bit,
           _said("nf4 instead of int8")),
    Change("quantize", False, "a coarser base model: 4 bits per weight instead of 16 or 32", precision.quantize,
           lambda before, after: f"QLoRA (nf4) instead of a {before.dtype.bytes * 8}-bit base"),
    Change(
        "trained dtype",
        False,
        "weights, gradients and states in bfloat16: updates of less than 1/256 of a weight can be rounded away "
        "(mixed precision keeps an fp32 copy for that, arXiv:1710.03740, section 3.1)",
        precision.trained_weights,
        _loaded,
    ),
    Change(
        "sequence",
        False,
        "longer samples are cut, and with them what they teach",
        sizes.sequence,
        lambda before, after: f"sequence {after.seq:,} instead of {before.seq:,}",
    ),
    Change("dora", False, "magnitudes are not trained apart (DoRA's paper, arXiv:2402.09353, gains most at low ranks)",
           sizes.plain_lora, _said("LoRA instead of DoRA (lora.dora: false)")),
    Change(
        "modules",
        False,
        "they stay as they are: tokens that the model does not know yet learn nothing in an embedding or a head",
        sizes.saved_modules,
        lambda before, after: f"{'+'.join(before.lora.modules_to_save)} not trained whole",
    ),
    Change(
        "targets",
        False,
        "fewer adapters: the QLoRA paper (figure 2) needs them on every linear layer to match full fine-tuning",
        sizes.targets,
        lambda before, after: f"adapters on {'+'.join(after.lora.targets)} only",
    ),
    Change(
        "rank",
        False,
        "less room for what is learned",
        sizes.rank,
        lambda before, after: f"rank {after.lora.rank} instead of {before.lora.rank}",
    ),
    Change("adapters", False, "adapters on a 4-bit base are trained, the base model itself no more", precision.adapters,
           _said("QLoRA instead of full fine-tuning")),
)  # fmt: skip


def changes_but(names: Collection[str]) -> tuple[Change, ...]:
    """The table without the changes of these names."""
    return tuple(change for change in CHANGES if change.name not in names)
