"""A file's keys as a scenario: every default and name resolved; what contradicts itself is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET

from vramplan.catalog.gpus import check_gpu
from vramplan.errors import UsageError, nearest, unknown
from vramplan.model_source import resolve_model
from vramplan.optimizers import check_optimizer
from vramplan.scenario import (
    ALL_LINEAR,
    ATTENTION,
    WITHOUT_SDPA,
    Checkpointing,
    DType,
    Evaluation,
    Lora,
    Merge,
    Method,
    ModelRef,
    Quant,
    QuantType,
    Scenario,
)
from vramplan.scenario_check import check_keys, convert
from vramplan.scenario_quant import resolve_quant
from vramplan.scenario_schema import MergeKeys, ScenarioKeys, StackKeys
from vramplan.stacks import STACKS, LayerKernel, LossKernel, Outputs, Stack, Upcast
from vramplan.torch_release import DEFAULT as USUAL_TORCH
from vramplan.torch_release import OLDEST, is_older, release


def resolve_scenario(mapping: Mapping[str, Any], base: Path, where: str) -> Scenario:
    """The scenario of a file's keys; a UsageError for keys that are unknown, or that contradict each other."""
    check_keys(mapping, where)
    keys = convert(mapping, where)
    model = resolve_model(keys.model, base=base)
    quant = resolve_quant(keys, model, where)
    compute = keys.compute_dtype
    stack = _stack(keys.stack, quantized=quant.type is not QuantType.NONE, compute=compute, where=where)
    scenario = Scenario(
        name=keys.name or f"{model.name}-{keys.method.value}",
        model=model,
        method=keys.method,
        quant=quant,
        lora=_lora(keys, stack, quant, where),
        batch=keys.batch,
        seq=keys.seq,
        grad_accum=keys.grad_accum,
        optimizer=check_optimizer(keys.optimizer),
        dtype=compute if keys.dtype is UNSET else keys.dtype,
        compute_dtype=compute,
        load_from=keys.load,
        checkpointing=_checkpointing(keys.checkpointing),
        attention=_attention(keys.attention, model, where),
        stack=stack,
        gpu=check_gpu(keys.gpu) if keys.gpu else "",
        torch=_torch(keys.torch, where),
        expandable_segments=keys.expandable_segments,
        new_tokens=keys.new_tokens,
        padding=_padding(keys, where),
        merge=_merge(keys, where),
        evaluation=_evaluation(keys, where),
    )
    _check_scaling(scenario, where)
    _check_preference(scenario, where)
    return scenario


def _check_preference(scenario: Scenario, where: str) -> None:
    """Refuse what TRL's DPOTrainer does not do, or what it does that is not modelled."""
    stack = scenario.stack
    if not (scenario.method.trains and stack.prefers):
        return
    if scenario.method is Method.FULL:
        raise UsageError(
            f"{where}: stack {stack.base} with method full, whose reference is a second model that is not modelled",
            hint="set method: qlora or lora, whose reference is the model without its adapters",
        )
    for key, value, own in (("loss", stack.loss, LossKernel.TILED), ("outputs", stack.outputs, Outputs.FREED)):
        if value is not own:
            raise UsageError(
                f"{where}: stack.{key} {value.value} with stack {stack.base}, whose trainer has its own",
                hint=f"leave stack.{key} out",
            )
    if scenario.evaluation is not None and scenario.evaluation.accumulate:
        raise UsageError(
            f"{where}: eval.accumulate with stack {stack.base}; what its trainer gathers is not modelled",
            hint="set eval.accumulate: 0, which is its evaluation without a function of metrics",
        )


def _check_scaling(scenario: Scenario, where: str) -> None:
    """Refuse what torch's GradScaler, which accelerate uses under float16 autocast, raises at the first step."""
    full = scenario.method is Method.FULL
    trained = scenario.dtype if full else scenario.lora.dtype
    cast_up = full and scenario.stack.upcast is Upcast.ALL
    scaled = scenario.method.trains and scenario.stack.autocast == DType.FLOAT16.value
    if scaled and trained is DType.FLOAT16 and not cast_up:
        key = "dtype" if full else "lora.dtype"
        raise UsageError(
            f"{where}: {key} float16 under float16 autocast: torch stops with 'Attempting to unscale FP16 gradients'",
            hint=f"set {key}: float32, or compute in bfloat16",
        )


def _merge(keys: ScenarioKeys, where: str) -> Merge:
    given = keys.merge
    if given != MergeKeys() and keys.method is not Method.MERGE:
        raise UsageError(
            f"{where}: merge with method {keys.method.value}", hint="set method: merge, or remove the key 'merge'"
        )
    if given.dequantize and keys.quant.type is QuantType.NONE:
        raise UsageError(
            f"{where}: merge.dequantize: true with quant.type none; there is nothing to dequantise",
            hint="set quant.type to how the base was trained (nf4), or remove merge.dequantize",
        )
    return Merge(dequantize=given.dequantize, safe=given.safe, max_shard_size=given.max_shard_size)


def _evaluation(keys: ScenarioKeys, where: str) -> Evaluation | None:
    if keys.eval is UNSET:
        return None
    if not keys.method.trains:
        raise UsageError(
            f"{where}: eval with method {keys.method.value}, which does not train",
            hint="remove the key 'eval', or set method: qlora, lora or full",
        )
    return Evaluation(
        batch=keys.batch if keys.eval.batch is UNSET else keys.eval.batch, accumulate=keys.eval.accumulate
    )


def _targets(targets: str | list[str], where: str) -> tuple[str, ...]:
    names = [targets] if isinstance(targets, str) else targets
    if not names or not all(names):
        raise UsageError(f"{where}: lora.targets is empty", hint=f"name modules such as q_proj, or use {ALL_LINEAR}")
    if ALL_LINEAR in names and len(names) > 1:
        raise UsageError(f"{where}: lora.targets mixes {ALL_LINEAR} with names", hint=f"use {ALL_LINEAR} alone")
    return tuple(dict.fromkeys(names))


def _lora(keys: ScenarioKeys, stack: Stack, quant: Quant, where: str) -> Lora:
    """The adapters: in fp32, as peft casts them, but for what TRL does to all that is trained of a quantised model."""
    given = keys.lora
    cast = stack.casts_adapters and quant.type is not QuantType.NONE
    for key, dtype in (("dtype", given.dtype), ("modules_dtype", given.modules_dtype)):
        if cast and dtype not in (UNSET, DType.BFLOAT16):
            raise UsageError(
                f"{where}: lora.{key} {dtype} with stack {stack.base}, which casts what is trained of a quantised model"
                " to bfloat16",
                hint=f"leave lora.{key} out, or set stack: hf-trainer",
            )
    adapters, modules = (DType.BFLOAT16, DType.BFLOAT16) if cast else (DType.FLOAT32, None)
    modules = modules if given.modules_dtype is UNSET else given.modules_dtype
    return Lora(
        rank=given.rank,
        targets=_targets(given.targets, where),
        dropout=given.dropout,
        dtype=adapters if given.dtype is UNSET else given.dtype,
        dora=given.dora,
        modules_to_save=_saved(given.modules_to_save, where),
        modules_dtype=modules if given.modules_to_save else None,
    )


def _saved(names: list[str], where: str) -> tuple[str, ...]:
    if not all(names):
        raise UsageError(f"{where}: lora.modules_to_save has an empty name", hint="such as [embed_tokens, lm_head]")
    return tuple(dict.fromkeys(names))


def _checkpointing(value: bool | str) -> Checkpointing:
    return Checkpointing(str(value).lower())


def _padding(keys: ScenarioKeys, where: str) -> bool:
    if keys.padding and not keys.method.trains:
        raise UsageError(
            f"{where}: padding: true with method {keys.method.value}, which does not train",
            hint="remove the key 'padding', or set method: qlora, lora or full",
        )
    if keys.padding and keys.attention == "sdpa:flash":
        raise UsageError(
            f"{where}: padding: true with attention: sdpa:flash, whose kernel takes no mask",
            hint="set attention: sdpa (the memory-efficient kernel) or flash_attention_2 (padding is cut out)",
        )
    return keys.padding


def _torch(value: str, where: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,2}\.\d{1,3}(\.\d\S*|\+\S+)?", value, re.ASCII):  # also what torch calls itself
        raise UsageError(f"{where}: torch: '{value}' is no release of PyTorch", hint=f"such as '{USUAL_TORCH}'")
    if is_older(value):
        raise UsageError(f"{where}: torch: '{value}' is older than any that is known", hint=f"from {OLDEST} on")
    return release(value)


def _attention(value: str, model: ModelRef, where: str) -> str:
    """Plain sdpa, everybody's default, means eager for a family that has none: transformers 5.17
    `_check_and_adjust_attn_implementation`."""
    if value not in ATTENTION:
        raise unknown("attention", value, ATTENTION, where=where)
    family = model.config.get("model_type")
    if family not in WITHOUT_SDPA or not value.startswith("sdpa"):
        return value
    if value != "sdpa":
        raise UsageError(f"{where}: '{family}' has no attention '{value}' in transformers", hint="use attention: eager")
    return "eager"


def _stack(given: str | StackKeys, *, quantized: bool, compute: DType, where: str) -> Stack:
    """The stack with every habit spelled out.

    Preparation for k-bit training, and with it the upcast, is only called for a quantised base.
    """
    if isinstance(given, str):
        if given not in STACKS:
            raise UsageError(
                f"{where}: unknown stack '{given}'", hint=f"{nearest(given, STACKS)}allowed: {', '.join(STACKS)}"
            )
        given = StackKeys(base=given)  # type: ignore[arg-type]  # checked against STACKS just now
    named = STACKS[given.base]
    upcast = named.upcast if quantized else Upcast.NONE
    autocast = named.autocast if given.autocast is UNSET else given.autocast
    if autocast is True:
        autocast = False if compute is DType.FLOAT32 else compute.value
    return Stack(
        base=named.base,
        upcast=upcast if given.upcast is UNSET else given.upcast,
        autocast=autocast,
        outputs=named.outputs if given.outputs is UNSET else given.outputs,
        loss=named.loss if given.loss is UNSET else given.loss,
        clip=named.clip if given.clip is UNSET else given.clip,
        kernels=_kernels(given.kernels),
    )


def _kernels(given: str | list[LayerKernel]) -> tuple[LayerKernel, ...]:
    """The layers' kernels in Liger's order, each once."""
    if isinstance(given, str):
        words: dict[str, list[LayerKernel]] = {"torch": [], "liger": [*LayerKernel]}
        given = words[given] if given in words else [LayerKernel(given)]
    return tuple(kernel for kernel in LayerKernel if kernel in given)
