"""The scenario file as people write it: keys, types, defaults. `vramplan schema` exports it for editors."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vramplan.scenario import DType, Load, Method, QuantType
from vramplan.stacks import LayerKernel, LossKernel, Outputs, Upcast
from vramplan.torch_release import DEFAULT as USUAL_TORCH

#: A guard against slips of the keyboard, and no limit of the arithmetic: no run has as many samples, tokens or steps.
LARGEST_COUNT = 2**24
Count = Annotated[int, Meta(ge=1, le=LARGEST_COUNT)]
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # bitsandbytes 0.50 functional.py: quantize_4bit


class QuantKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the base model's linear layers are quantised."""

    type: QuantType | UnsetType = UNSET
    double: bool | UnsetType = UNSET
    block_size: int = 64
    storage: Literal["uint8", "bfloat16", "float16", "float32"] = "uint8"


class LoraKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The adapters."""

    rank: Annotated[int, Meta(ge=1, le=2**16)] = 16
    targets: str | list[str] = "all-linear"
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    dtype: DType | UnsetType = UNSET
    dora: bool = False
    modules_to_save: list[str] = []
    modules_dtype: DType | UnsetType = UNSET


class StackKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named stack with some of its habits changed."""

    base: Literal["hf-trainer", "trl", "trl-dpo", "script"] = "hf-trainer"
    upcast: Upcast | UnsetType = UNSET
    autocast: bool | Literal["bfloat16", "float16"] | UnsetType = UNSET
    outputs: Outputs | UnsetType = UNSET
    loss: LossKernel | UnsetType = UNSET
    clip: bool | UnsetType = UNSET
    kernels: Literal["torch", "liger", "rope", "rms_norm", "mlp"] | list[LayerKernel] = "torch"


class MergeKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `method: merge` merges and saves."""

    dequantize: bool = False
    safe: bool = False
    max_shard_size: Annotated[str, Meta(pattern=r"^[1-9][0-9]*[KMGT]B$")] = "50GB"  # transformers 5.17


class EvalKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evaluation inside training; the batch is the training's where none is given."""

    batch: Count | UnsetType = UNSET
    accumulate: Annotated[int, Meta(ge=0, le=LARGEST_COUNT)] = 0


class ScenarioKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One vramplan scenario: what is trained, how, on what."""

    model: str | dict[str, Any]
    name: str = ""
    method: Method = Method.QLORA
    quant: QuantKeys = QuantKeys()
    lora: LoraKeys = LoraKeys()
    batch: Count = 1
    seq: Count = 2048
    padding: bool = False
    grad_accum: Annotated[int, Meta(ge=1, le=2**16)] = 1  # a Trainer's step has all of its micro-batches on the device
    optimizer: str = "adamw_torch"
    dtype: DType | UnsetType = UNSET
    compute_dtype: DType = DType.BFLOAT16
    load: Load = Load.CHECKPOINT
    checkpointing: bool | Literal["reentrant"] = True
    attention: str = "sdpa"
    stack: str | StackKeys = "hf-trainer"
    gpu: str = ""
    torch: str = USUAL_TORCH
    expandable_segments: bool = False
    new_tokens: Count = 128
    merge: MergeKeys = MergeKeys()
    eval: EvalKeys | UnsetType = UNSET
    matrix: dict[str, list[Any]] = {}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file."""
    schema = msgspec.json.schema(ScenarioKeys)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vramplan scenario", **schema}
