"""A scenario: what is trained, how, on what. Resolved, typed and frozen; `scenario_file` reads it from YAML."""

import json
import os
from collections.abc import Hashable
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import msgspec

from vramplan.architecture import Architecture, read_architecture
from vramplan.element_types import ELEMENT_BYTES
from vramplan.stacks import Stack


class Method(StrEnum):
    """What the run does."""

    QLORA = "qlora"
    LORA = "lora"
    FULL = "full"
    INFERENCE = "inference"
    MERGE = "merge"

    @property
    def trains(self) -> bool:
        """Whether the run has training steps."""
        return self in (Method.QLORA, Method.LORA, Method.FULL)

    @property
    def adapts(self) -> bool:
        """Whether adapters are attached."""
        return self in (Method.QLORA, Method.LORA, Method.MERGE)


class QuantType(StrEnum):
    """How the linear layers of the base model are stored."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"
    NONE = "none"

    @property
    def four_bit(self) -> bool:
        """Whether two weights share a byte."""
        return self in (QuantType.NF4, QuantType.FP4)


class DType(StrEnum):
    """Element types, by torch's names."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    @property
    def bytes(self) -> int:
        """Bytes per element."""
        return ELEMENT_BYTES[self]


class Checkpointing(StrEnum):
    """Gradient checkpointing; spelled `true`, `reentrant` and `false` in YAML."""

    NON_REENTRANT = "true"
    REENTRANT = "reentrant"
    OFF = "false"


class Load(StrEnum):
    """Where the base weights come from."""

    CHECKPOINT = "checkpoint"  # from_pretrained
    RANDOM = "random"  # built layer by layer


#: Families of the table whose code in transformers 5.17 has no sdpa (`_supports_sdpa = False`).
WITHOUT_SDPA = frozenset({"gpt_oss"})
ATTENTION = ("sdpa", "sdpa:flash", "sdpa:efficient", "sdpa:cudnn", "sdpa:math", "eager", "flash_attention_2")
ALL_LINEAR = "all-linear"


class ModelRef(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Which model: its name for people, its config.json, and where both came from."""

    name: str
    """Catalogue name, Hugging Face id, or the directory's own name."""
    config: dict[str, Any]
    """config.json as read; never changed."""
    origin: Literal["catalog", "hub", "local", "inline"]
    path: str = ""
    """Directory that holds the weights, for a local model; empty otherwise."""
    note: str = ""
    """What the configuration leaves out, or whose it is; empty where it is the model's own and whole."""

    @cached_property
    def architecture(self) -> Architecture:
        """Every weight of the model."""
        return read_architecture(self.config, name=self.name)

    @cached_property
    def key(self) -> tuple[str, str]:
        """The name and the configuration, hashable, whatever numbers and characters somebody's file has."""
        return self.name, json.dumps(self.config, sort_keys=True)


class Quant(msgspec.Struct, frozen=True, kw_only=True):
    """Quantisation of the base model's linear layers."""

    type: QuantType
    double: bool
    """Whether the block constants are quantised again."""
    block_size: int = 64
    """Weights that share one constant."""
    storage: str = "uint8"
    """Element type of the packed tensor: uint8, or a float type (for FSDP)."""


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """Low-rank adapters."""

    rank: int
    targets: tuple[str, ...]
    """Module names that get an adapter, or `('all-linear',)`."""
    dropout: float
    dtype: DType
    dora: bool = False
    """Whether each adapted matrix is split into magnitude and direction (DoRA, arXiv:2402.09353): peft's `use_dora`."""
    modules_to_save: tuple[str, ...] = ()
    """Names of modules that are trained whole: peft copies every module whose path ends in one of them."""
    modules_dtype: DType | None = None
    """What the trainer casts these copies to; None where it leaves them as the base's modules are."""

    @property
    def words(self) -> str:
        """`rank 16 on q_proj+v_proj, lm_head whole`."""
        whole = f", {'+'.join(self.modules_to_save)} whole" if self.modules_to_save else ""
        return f"rank {self.rank}{' (DoRA)' if self.dora else ''} on {'+'.join(self.targets)}{whole}"


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """How adapters are merged into the base and the result is saved; read by `method: merge` alone."""

    dequantize: bool
    """Whether a quantised base is made 16-bit whole (`model.dequantize()`) before the adapters are attached."""
    safe: bool
    """Whether each sum is made in a copy and looked through for NaN (`merge_and_unload(safe_merge=True)`)."""
    max_shard_size: str
    """`save_pretrained`'s limit of one file, in its own spelling."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluation inside training, as transformers' Trainer runs it (`evaluation_loop`)."""

    batch: int
    """`per_device_eval_batch_size`."""
    accumulate: int
    """Evaluation steps whose logits are gathered on the device (`eval_accumulation_steps`; without it, all steps of
    the evaluation). 0: only the loss is looked at (`prediction_loss_only`, the Trainer's way without metrics)."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One run, fully resolved: every default filled in, every name looked up."""

    name: str
    model: ModelRef
    method: Method
    quant: Quant
    lora: Lora
    batch: int
    """Micro-batch per device, in samples."""
    seq: int
    """Tokens per sequence as fed to the model."""
    grad_accum: int
    optimizer: str
    """transformers' OptimizerNames spelling, plus sgd."""
    dtype: DType
    """Base weights as loaded."""
    compute_dtype: DType
    """bitsandbytes' matmul dtype."""
    load_from: Load = msgspec.field(name="load")
    """The file's `load` key; `Scenario.load` is what reads a scenario."""
    checkpointing: Checkpointing
    attention: str
    stack: Stack
    gpu: str
    """Catalogue name of the card; empty when none is meant."""
    torch: str
    """Release of PyTorch that runs it on a card, as major and minor number (`vramplan.torch_release`)."""
    expandable_segments: bool
    """Whether it runs with `PYTORCH_ALLOC_CONF=expandable_segments:True`."""
    new_tokens: int
    """Tokens that inference generates after the prompt of `seq` tokens."""
    merge: Merge
    padding: bool
    """Whether samples of a batch are padded, so that its attention mask has zeros and attention gets a mask."""
    evaluation: Evaluation | None = msgspec.field(name="eval")
    """The file's `eval` key; None when the run does not evaluate."""

    @classmethod
    def load(cls, target: "str | os.PathLike[str]", **overrides: Any) -> "Scenario":
        """The scenario that `target` stands for (a file, a scenario's or model's name, a directory), some keys changed.

        `Scenario.load("llama-2-7b", batch=4, quant={"double": False})`
        """
        from vramplan.targets import load_scenario  # reading is built on this class

        return load_scenario(target, overrides)

    @property
    def architecture(self) -> Architecture:
        """Every weight of the model; read once for all scenarios that share it."""
        return self.model.architecture

    @property
    def key(self) -> tuple[Hashable, ...]:
        """All of it, hashable: scenarios that say the same have equal keys."""
        return self.model.key, *(getattr(self, field) for field in self.__struct_fields__ if field != "model")

    @property
    def masked(self) -> bool:
        """Whether a batch comes with an attention mask: where samples are padded, and always from TRL's collator."""
        return self.padding or self.stack.trl

    @property
    def arrives_by_tensor(self) -> bool:
        """Whether `from_pretrained` puts each tensor of the checkpoint on the device as it reads it (`device_map`).

        To train a model that is not quantised, a script or the Trainer loads it on the host and moves it whole
        (`model.to`); TRL loads it straight to the card (trl 1.16 trainer/utils.py `create_model_from_path`).
        """
        quantised = self.quant.type is not QuantType.NONE
        straight = quantised or self.method is Method.MERGE or self.stack.trl
        return self.load_from is Load.CHECKPOINT and straight

    @property
    def runs_liger(self) -> bool:
        """Whether any of Liger's kernels runs: they are patched in for training alone."""
        return self.method.trains and self.stack.liger

    @property
    def recasts_adapters(self) -> bool:
        """Whether the stack casts the adapters after peft has."""
        return self.stack.casts_adapters and self.quant.type is not QuantType.NONE

    @property
    def sequences(self) -> int:
        """Sequences that the model gets at once: two for each sample of preference training, which is a pair."""
        return self.batch * self.stack.sequences_per_sample if self.method.trains else self.batch

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.sequences * self.seq

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping that is itself a valid scenario file: names where they are public, else the configuration."""
        mapping: dict[str, Any] = msgspec.to_builtins(self)
        public = self.model.origin in ("catalog", "hub")
        mapping["model"] = self.model.name if public else {**self.model.config, "_name_or_path": self.model.name}
        mapping["checkpointing"] = {"true": True, "false": False}.get(self.checkpointing, self.checkpointing.value)
        lora = mapping["lora"]
        lora["targets"] = ALL_LINEAR if self.lora.targets == (ALL_LINEAR,) else list(self.lora.targets)
        lora["modules_to_save"] = list(self.lora.modules_to_save)
        for key in ("dora", "modules_to_save", "modules_dtype"):
            if not lora[key]:
                del lora[key]
        if not self.stack.kernels:
            del mapping["stack"]["kernels"]
        unused = {"gpu": not self.gpu, "merge": self.method is not Method.MERGE, "eval": self.evaluation is None}
        unused |= {"padding": not self.padding, "expandable_segments": not self.expandable_segments}
        for key in (key for key, absent in unused.items() if absent):
            del mapping[key]
        return mapping
