"""The scenario file as people write it: keys, types, defaults. `vramplan schema` exports it for editors."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vramplan.catalog.gpus import gpu_names
from vramplan.optimizers import OPTIMIZERS
from vramplan.scenario import ATTENTION, DType, Load, Method, QuantType
from vramplan.stacks import STACKS, LayerKernel, LossKernel, Outputs, Upcast
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


#: The keys that are mappings, and what each may hold.
SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    "quant": QuantKeys,
    "lora": LoraKeys,
    "stack": StackKeys,
    "merge": MergeKeys,
    "eval": EvalKeys,
}


def json_schema(descriptions: Mapping[str, str]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file, with what `descriptions` say of its dotted keys."""
    schema = msgspec.json.schema(ScenarioKeys)
    closed = {"optimizer": OPTIMIZERS, "attention": ATTENTION, "quant.block_size": BLOCK_SIZES}
    for key, words in closed.items():
        _property(schema, key)["enum"] = [*words]
    _property(schema, "stack")["anyOf"][0]["enum"] = [*STACKS]
    # Cards have other spellings too: names to choose from, and any text.
    _property(schema, "gpu")["anyOf"] = [{"enum": ["", *gpu_names()]}, {"type": "string"}]
    for key, text in descriptions.items():
        _property(schema, key)["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vramplan scenario", **schema}


def _property(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """The schema of one dotted key."""
    section, _, name = key.rpartition(".")
    struct = SECTIONS[section] if section else ScenarioKeys
    found: dict[str, Any] = schema["$defs"][struct.__name__]["properties"][name]
    return found
