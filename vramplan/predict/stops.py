"""What ends a run at its first step, whatever fits: element types that torch cannot bring together, kernels that the
card has not."""

from collections.abc import Iterator

from vramplan.architecture import HEAD, WeightKind
from vramplan.optimizers import Family, optimizer
from vramplan.predict.adapters import stepped
from vramplan.predict.expert_targets import resolve_targets
from vramplan.predict.liger import patched
from vramplan.predict.optimizer import eight_bit
from vramplan.predict.overheads import card
from vramplan.scenario import DType, Method, Scenario
from vramplan.stacks import LayerKernel, LossKernel, Upcast

_ENDS = "the run stops at its first step"
#: peft 0.21 tuners/lora/layer.py, liger-kernel 0.8.5 transformers/swiglu.py. Of a run that patches the classes before
#: the model is built it is not true, and no scenario says so: an import denies it (`Imported.denied`).
LIGER_ON_WRAPPED_EXPERTS = (
    f"{_ENDS}: the Trainer has Liger replace the experts' code once peft has wrapped them ('ParamWrapper'"
    " object has no attribute 'hidden_dim'); leave mlp out of stack.kernels, name attention's modules in"
    " lora.targets, or have Liger patch the classes before the model is loaded"
)
#: Least compute capability of FlashAttention 2, whose own words are cited below (flash_api.cpp, also in torch's copy of
#: it, aten/src/ATen/native/transformers/cuda/flash_attn); transformers 5.17 loads the model without asking for it.
FLASH_ATTENTION_SINCE = (8, 0)


def stops(scenario: Scenario) -> Iterator[str]:
    """Why the run will not come to a second step; each was seen in PyTorch's CUDA build (torch 2.13)."""
    if scenario.method.trains:
        if refused := _scaled_in_16_bits(scenario):
            cause = ", to which TRL casts a quantised model's adapters" if scenario.recasts_adapters else ""
            yield f"{_ENDS}: float16 autocast scales gradients, and torch none in {refused}{cause}"
        if _lacks_kernel(scenario):
            yield f"{_ENDS}: bitsandbytes has no {scenario.optimizer} for gradients in bfloat16"
        if _mixes_norms(scenario) and scenario.architecture.norm == "layer":
            yield f"{_ENDS}: without autocast layer norms in fp32 get hidden states of {scenario.dtype.value}"
        elif _mixes_norms(scenario) and scenario.stack.loss is not LossKernel.TILED:  # whose head casts its weight
            yield f"{_ENDS}: without autocast the fp32 norms' output meets a head of {scenario.dtype.value}"
        if scenario.method.adapts and HEAD in scenario.lora.targets and scenario.stack.loss is LossKernel.TILED:
            yield (  # trl 1.16 trainer/sft_trainer.py
                "the run stops before its first step: TRL refuses adapters on lm_head, whose weight its loss multiplies"
                " by; remove lm_head from lora.targets, or name it in lora.modules_to_save"
            )
        if _liger_meets_wrapped_experts(scenario):
            yield LIGER_ON_WRAPPED_EXPERTS
    yield from stops_of_card(scenario)


def stops_of_card(scenario: Scenario) -> Iterator[str]:
    """Those that another card would not have."""
    target = card(scenario)
    if target is None or scenario.attention != "flash_attention_2" or scenario.method is Method.MERGE:
        return
    if target.capability < FLASH_ATTENTION_SINCE:
        major, minor = target.capability
        yield (
            f"{_ENDS}: FlashAttention only supports Ampere GPUs or newer (compute capability 8.0), and {target.name} "
            f"has {major}.{minor}; set attention: sdpa"
        )


def _scaled_in_16_bits(scenario: Scenario) -> str:
    """The 16-bit type of the gradients that are to be scaled; empty where they are fp32, or none are scaled.

    native/cuda/AmpKernels.cu `_amp_foreach_non_finite_check_and_unscale_cuda` dispatches no bfloat16, and
    torch/amp/grad_scaler.py `unscale_` refuses float16.
    """
    if scenario.stack.autocast != DType.FLOAT16.value:
        return ""
    return next((dtype.value for dtype in _trained(scenario) if dtype is not DType.FLOAT32), "")


def _trained(scenario: Scenario) -> Iterator[DType]:
    """The types of what is trained, and of its gradients: adapters and copies of whole modules, or the model."""
    base = DType.FLOAT32 if scenario.stack.upcast is Upcast.ALL else scenario.dtype
    if scenario.method is Method.FULL:
        yield base
        return
    yield scenario.lora.dtype
    if scenario.lora.modules_to_save:
        yield scenario.lora.modules_dtype or base


def _lacks_kernel(scenario: Scenario) -> bool:
    """Whether a tensor with gradients in bfloat16 has 32-bit states of an optimizer without a kernel for both
    (bitsandbytes 0.50 backends/cuda/ops.py `str2optimizer32bit`: rmsprop has two); some have them with 8-bit ones."""
    kind, trainer = optimizer(scenario.optimizer), scenario.stack.trainer
    if kind.family is not Family.RMSPROP or not kind.bitsandbytes or DType.BFLOAT16 not in _trained(scenario):
        return False
    wide = (tensor for tensor in stepped(scenario) if not eight_bit(kind, tensor, trainer=trainer))
    return any(tensor.dtype == DType.BFLOAT16 for tensor in wide)


def _liger_meets_wrapped_experts(scenario: Scenario) -> bool:
    """Whether experts that Liger's `LigerExperts` is put into have adapters: those are of peft's wrapper."""
    after_peft = scenario.method.adapts and scenario.stack.trainer
    if not after_peft or LayerKernel.MLP not in patched(scenario).kernels:
        return False
    targets = resolve_targets(scenario.architecture, scenario.lora)
    return any(w.kind is WeightKind.EXPERTS and targets.rank_factor(w) for w, _ in scenario.architecture.counted)


def _mixes_norms(scenario: Scenario) -> bool:
    """Whether norms alone are fp32, and nothing casts what meets them: `layer_norm` and `linear` want one type."""
    stack = scenario.stack
    return stack.upcast is Upcast.NORMS and stack.autocast is False and scenario.dtype is not DType.FLOAT32
