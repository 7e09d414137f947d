"""What to say of a run beside its numbers, whichever engine predicts it."""

from collections.abc import Iterable

from msgspec import structs

from vramplan.architecture import WeightKind
from vramplan.attention import Choice, Kernel
from vramplan.optimizers import optimizer
from vramplan.predict.adapters import is_idle, trainables
from vramplan.predict.changes import reentrant
from vramplan.predict.changes_precision import float16
from vramplan.predict.context_length import context_warning
from vramplan.predict.forecast import ledger
from vramplan.predict.liger import LIGER, patched
from vramplan.predict.merge import merge_warnings
from vramplan.predict.optimizer import MIN_PAGED_SIZE
from vramplan.predict.prequantized import prequantized_warnings
from vramplan.predict.quantization import quantized_parameters
from vramplan.predict.stops import stops
from vramplan.record import Device
from vramplan.scenario import DType, Method, QuantType, Scenario
from vramplan.stacks import LayerKernel, Upcast
from vramplan.torch_release import NEWEST, is_newer
from vramplan.units import human


def scenario_warnings(scenario: Scenario, managed: int, device: Device, choices: Iterable[Choice]) -> tuple[str, ...]:
    """What to say of the run itself, whichever engine predicts it; `choices` are the kernels that attention takes."""
    own = [scenario.model.note, *model_warnings(scenario), context_warning(scenario)]
    own += [_paged_warning(scenario, managed, device), _int8_warning(scenario, device)]
    own += _liger_warnings(scenario, device)
    if device == "cuda" and is_newer(scenario.torch):
        own.append(f"torch {scenario.torch} is newer than {NEWEST}: it is predicted as if its allocator were the same")
    if device == "cuda":
        own += stops(scenario)
        own += _attention_warnings(scenario, choices)
    if device == "cuda" and not scenario.gpu:
        own.append("no gpu named: kernels of an A100 are assumed, and the CUDA context is not counted in device")
    if scenario.method is Method.MERGE:
        own += merge_warnings(scenario)
    return tuple(filter(None, own))


def model_warnings(scenario: Scenario) -> list[str]:
    """What to say of how the model is stored, which holds for every batch and sequence."""
    return list(filter(None, [*prequantized_warnings(scenario), _quantised_warning(scenario)]))


def _attention_warnings(scenario: Scenario, choices: Iterable[Choice]) -> list[str]:
    """What to say where a named kernel is refused, or attention ends in the math kernel: why, and what avoids it."""
    return [
        f"{choice.warning}; {_way_out(scenario)}" if choice.kernel is Kernel.MATH else choice.warning
        for choice in choices
        if choice.warning
    ]


def _way_out(scenario: Scenario) -> str:
    """What avoids the math kernel, and what that would save at the peak; each a prediction of the changed scenario."""
    here = ledger(scenario).peak
    savings = {words: here - ledger(changed).peak for words, changed in _fused_ways(scenario)}
    words, saving = max(savings.items(), key=lambda item: item[1])
    if saving > 0:
        return f"{words} takes {human(saving)} less at the peak"
    costs = here - ledger(structs.replace(scenario, attention="sdpa:efficient")).peak
    return f"the matrix takes {human(costs)} of the peak" if costs > 0 else "here it does not decide the peak"


def _fused_ways(scenario: Scenario) -> Iterable[tuple[str, Scenario]]:
    """Changes after which torch may take a fused kernel: 16-bit queries, and where cards know no bfloat16, float16."""
    compute = DType.BFLOAT16 if scenario.compute_dtype is DType.FLOAT32 else scenario.compute_dtype
    autocast = structs.replace(scenario, stack=structs.replace(scenario.stack, autocast=compute.value))
    yield f"autocast (stack.autocast: {compute.value})", autocast
    for half in float16(scenario):
        yield f"float16 (compute_dtype: {half.compute_dtype.value})", half


#: What bitsandbytes leaves as it is though most of a model may consist of it, and why it does.
_NOT_QUANTISED = {
    WeightKind.EXPERTS: "transformers keeps each layer's experts as 3-D parameters",
    WeightKind.SUBLINEAR: "its layers are of a class of their own, derived from nn.Linear",
}


def _quantised_warning(scenario: Scenario) -> str:
    """transformers quantises modules that are `nn.Linear` itself: no 3-D parameters, and no class derived from it."""
    architecture = scenario.architecture
    left = dict.fromkeys(_NOT_QUANTISED, 0)
    for weight, times in architecture.counted:
        if weight.kind in left:
            left[weight.kind] += weight.numel * times
    if not any(left.values()) or scenario.quant.type is QuantType.NONE:
        return ""
    share = quantized_parameters(architecture, scenario.quant) / architecture.numel
    upcast = scenario.method.trains and scenario.stack.upcast is not Upcast.NONE
    stay = human(sum(left.values()) * (4 if upcast else scenario.dtype.bytes))
    dtype = "are even made fp32 by the preparation" if upcast else f"stay {scenario.dtype.value}"
    why = " and ".join(reason for kind, reason in _NOT_QUANTISED.items() if left[kind])
    return (
        f"only {share:.1%} of the parameters are quantised: {why}, "
        f"which bitsandbytes does not quantise; they {dtype} ({stay})"
    )


def _liger_warnings(scenario: Scenario, device: Device) -> Iterable[str]:
    """What of Liger does not run as it is predicted."""
    if not scenario.runs_liger:
        return
    if device == "cpu":
        yield "Liger's kernels are Triton's, which has none for the CPU: predicted is what they would take"
    has, family = patched(scenario), scenario.architecture.family
    left = [kernel for kernel in scenario.stack.kernels if kernel not in has.kernels]
    if left and family in LIGER:
        yield f"Liger has no {' and '.join(left)} for {family}, which keeps transformers'"
    if any(is_idle(tensor, scenario) for tensor in trainables(scenario)):
        yield (
            "adapters on lm_head are never trained: Liger's loss multiplies by the head's own weight; remove lm_head "
            "from lora.targets, or name it in lora.modules_to_save"
        )
    # triton/backends/nvidia/driver.py `get_empty_cache_for_benchmark`; liger-kernel 0.8.5 ops/fused_moe_kernels.py
    if LayerKernel.MLP in has.kernels and scenario.architecture.mixes_experts:
        yield (
            "Liger's kernels for experts are tuned in the first step, for which Triton takes 256 MiB more than "
            "predicted; LIGER_FUSED_MOE_AUTOTUNE=0 leaves that out"
        )


def _int8_warning(scenario: Scenario, device: Device) -> str:
    """Checkpointing that saves less than it is meant to, for a reason that no number tells."""
    saving = max((ledger(scenario, device).peak - ledger(one, device).peak for one in reentrant(scenario)), default=0)
    if saving <= 0:
        return ""
    return (
        "int8 layers keep their inputs under non-reentrant checkpointing (bitsandbytes' MatMul8bitLt has them outside "
        f"save_for_backward); checkpointing: reentrant takes {human(saving)} less at the peak"
    )


def _paged_warning(scenario: Scenario, managed: int, device: Device) -> str:
    if device == "cpu" or not scenario.method.trains or not optimizer(scenario.optimizer).paged or managed:
        return ""
    return (
        f"no optimizer state is paged: bitsandbytes pages tensors of at least {MIN_PAGED_SIZE:,} elements, and none is "
        "that large"
    )
