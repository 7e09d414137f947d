"""The changes of element types: an fp32 base in 16 bits, float16 where a card knows no bfloat16, 4 bits for 8 or 16.

Each returns the changed scenarios, none where it does not apply; `vramplan.predict.changes` names their prices.
"""

from msgspec.structs import replace

from vramplan.attention import BFLOAT16_SINCE
from vramplan.predict.changes_sizes import Variants
from vramplan.predict.overheads import card
from vramplan.scenario import DType, Method, QuantType, Scenario
from vramplan.stacks import STACKS, Upcast


def double(scenario: Scenario) -> Variants:
    """The block constants quantised again."""
    if not scenario.quant.type.four_bit or scenario.quant.double:
        return ()
    return (replace(scenario, quant=replace(scenario.quant, double=True)),)


def upcast(scenario: Scenario) -> Variants:
    """No fp32 copies of what is not quantised."""
    if not scenario.method.trains or scenario.stack.upcast is Upcast.NONE:
        return ()
    return (replace(scenario, stack=replace(scenario.stack, upcast=Upcast.NONE)),)


def frozen_base(scenario: Scenario) -> Variants:
    """A frozen fp32 base loaded in 16 bits, and what bitsandbytes computes in fp32 computed in them.

    TRL loads fp32 unless told otherwise, and has bitsandbytes compute in the same type (trl 1.16 trainer/utils.py
    `create_model_from_path`, `get_quantization_config`); the default of transformers' `BitsAndBytesConfig` is fp32 too.
    """
    if scenario.method not in (Method.LORA, Method.QLORA):
        return ()
    wide_products = scenario.quant.type.four_bit and scenario.compute_dtype is DType.FLOAT32
    return (_in_16_bits(scenario),) if scenario.dtype is DType.FLOAT32 or wide_products else ()


def trained_weights(scenario: Scenario) -> Variants:
    """Full fine-tuning of bfloat16 weights, with gradients and states like them.

    Not of float16 ones: their gradients would have to be scaled, which torch refuses (torch/amp/grad_scaler.py
    `unscale_`); so it is nothing for cards without bfloat16.
    """
    if scenario.method is not Method.FULL or scenario.dtype is not DType.FLOAT32 or without_bfloat16(scenario):
        return ()
    return (replace(scenario, dtype=DType.BFLOAT16),)


def without_bfloat16(scenario: Scenario) -> bool:
    """Whether the card computes no bfloat16 itself: torch emulates it (torch/cuda/__init__.py `is_bf16_supported`),
    and no fused attention kernel takes it."""
    target = card(scenario)
    return target is not None and target.capability < BFLOAT16_SINCE


def float16(scenario: Scenario) -> Variants:
    """Everything that is bfloat16 in float16, on a card that knows no bfloat16.

    Trained weights stay as they are, so this is nothing for full fine-tuning without autocast: it scales no gradients.
    """
    stack, full = scenario.stack, scenario.method is Method.FULL
    computes = {scenario.dtype.value, scenario.compute_dtype.value, stack.autocast}
    if not scenario.method.trains or not without_bfloat16(scenario) or DType.BFLOAT16.value not in computes:
        return ()
    if full and not stack.autocast:
        return ()
    half = DType.FLOAT16
    return (
        replace(
            scenario,
            dtype=half if scenario.dtype is DType.BFLOAT16 and not full else scenario.dtype,
            compute_dtype=half,
            stack=replace(stack, autocast=half.value if stack.autocast else False),
        ),
    )


def four_bit(scenario: Scenario) -> Variants:
    """Nf4 for int8."""
    return (_on_four_bits(scenario),) if scenario.quant.type is QuantType.INT8 else ()


def quantize(scenario: Scenario) -> Variants:
    """Adapters on a 4-bit base instead of an unquantised one."""
    return (_on_four_bits(scenario),) if scenario.method is Method.LORA else ()


def adapters(scenario: Scenario) -> Variants:
    """Adapters on a 4-bit base instead of full fine-tuning, prepared as the stack prepares one."""
    return (_on_four_bits(scenario),) if scenario.method is Method.FULL else ()


def _on_four_bits(scenario: Scenario) -> Scenario:
    """The base quantised to nf4, what stays of it in 16 bits but for what the stack casts; TRL casts the adapters."""
    quant = replace(scenario.quant, type=QuantType.NF4, double=True)
    method = Method.QLORA if scenario.method.trains else scenario.method
    stack = replace(scenario.stack, upcast=STACKS[scenario.stack.base].upcast if method.trains else Upcast.NONE)
    quantised = replace(scenario, method=method, quant=quant, stack=stack)
    if quantised.recasts_adapters and method.trains:
        quantised = replace(quantised, lora=replace(quantised.lora, dtype=DType.BFLOAT16))
    return _in_16_bits(quantised) if DType.FLOAT32 in (quantised.dtype, quantised.compute_dtype) else quantised


def _in_16_bits(scenario: Scenario) -> Scenario:
    """Loaded and computed in autocast's type, or in the one that suits the card; autocast follows.

    Adapters that TRL has cast to bfloat16 keep autocast off float16, which scales gradients (`predict.stops`).
    """
    autocast = scenario.stack.autocast
    suits = without_bfloat16(scenario) and not scenario.recasts_adapters
    half = DType.FLOAT16 if suits or autocast == DType.FLOAT16.value else DType.BFLOAT16
    stack = replace(scenario.stack, autocast=half.value if autocast else False)
    return replace(scenario, dtype=half, compute_dtype=half, stack=stack)
