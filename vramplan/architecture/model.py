"""What a model is made of: its weights, and the facts about a layer that decide what a training step allocates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Literal

#: What transformers calls the output head; a tied one has no weight of its own that could tell.
HEAD = "lm_head"


#: What is normed of queries and keys: each head (Qwen 3, Gemma 3), all heads as one (OLMo 2), or nothing.
QkNorm = Literal["head", "full", ""]


class WeightKind(StrEnum):
    """What a parameter or buffer is; decides whether it is quantised, upcast or adapted."""

    LINEAR = "linear"  # weight of nn.Linear or transformers' Conv1D
    SUBLINEAR = "sublinear"  # weight of a subclass of nn.Linear (Falcon's): adapters fit it, it is never quantised
    EMBEDDING = "embedding"
    HEAD = "head"  # the output head's own weight (an untied nn.Linear that is never quantised)
    NORM = "norm"
    BIAS = "bias"
    EXPERTS = "experts"  # 3-D parameters of a mixture of experts: not nn.Linear, so never quantised
    ROUTER = "router"  # the parameter that scores experts, where it is not an nn.Linear
    OTHER = "other"  # any other parameter (attention sinks, ...)
    BUFFER = "buffer"  # rotary frequencies and the like; not a parameter


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter or buffer of the transformers model, under its own name."""

    path: str
    kind: WeightKind
    shape: tuple[int, ...]
    transposed: bool = False
    """True for Conv1D, whose weight is stored [in, out]."""
    dtype: str = ""
    """torch's name of the element type where the model's own does not decide it (rotary frequencies); else empty."""
    stored: str = ""
    """What a checkpoint calls it, or the first of the matrices that it is made of, where that is known to be another
    name than the model's; else empty."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def owner(self) -> str:
        """Path of the module that owns it, relative to its layer where it is in one: `self_attn.q_proj`."""
        return self.path.rpartition(".")[0]

    @property
    def module(self) -> str:
        """Last name of the module that owns it (`q_proj`): what adapter targets match."""
        return self.owner.rpartition(".")[2]

    @property
    def adaptable(self) -> bool:
        """Whether peft's `all-linear` gives it an adapter (tuners_utils._maybe_include_all_linear_layers, 0.21)."""
        return self.kind in (WeightKind.LINEAR, WeightKind.SUBLINEAR)

    @property
    def in_out(self) -> tuple[int, int]:
        """(in_features, out_features) of a linear weight."""
        rows, columns = self.shape
        return (rows, columns) if self.transposed else (columns, rows)


@dataclass(frozen=True, slots=True)
class Attention:
    """Facts about a layer's attention."""

    heads: int
    kv_heads: int
    head_dim: int
    """Size of a query/key head."""
    value_dim: int
    """Size of a value head; differs from `head_dim` only in multi-head latent attention."""
    rotary_dim: int
    """How much of a query's and key's head is rotated; 0 without rotary positions."""
    window: int = 0
    """Sliding window in tokens; 0 when every earlier token is seen."""
    softcap: bool = False
    """Whether scores are soft-capped (Gemma 2)."""
    qk_norm: QkNorm = ""
    sinks: bool = False
    """Whether each head has a learned sink (gpt-oss)."""
    latent_q: int = 0
    """Rank of the compressed query (multi-head latent attention); 0 when the query is projected directly."""
    latent_kv: int = 0
    """Rank of the compressed key/value; 0 for ordinary attention."""
    fused_qkv: bool = False
    """Whether q, k and v come out of one projection."""


@dataclass(frozen=True, slots=True)
class Mlp:
    """Facts about a dense feed-forward block."""

    intermediate: int
    activation: str
    """transformers' ACT2FN name."""
    gated: bool
    fused_gate: bool = False
    """Whether gate and up come out of one projection (Phi-3)."""


@dataclass(frozen=True, slots=True)
class Experts:
    """Facts about a mixture of experts."""

    count: int
    per_token: int
    intermediate: int
    activation: str
    bias: bool = False
    shares: bool = True
    """Whether the chosen experts' scores are divided by their sum."""


@dataclass(frozen=True)
class Block:
    """One kind of decoder layer: its weights (paths relative to the layer) and its facts."""

    weights: tuple[Weight, ...]
    attention: Attention
    mlp: Mlp | None
    """None when the layer's feed-forward is a mixture of experts."""
    experts: Experts | None
    variant: int = 0
    """Tells kinds of layers apart whose modules differ in switches that no weight shows (derived architectures)."""


@dataclass(frozen=True, slots=True)
class Dropouts:
    """The shares that a model's own dropouts drop in training; one of 0 leaves no mask behind."""

    attention: float = 0.0
    """Of the attention weights."""
    residual: float = 0.0
    """Of what a residual branch adds."""
    embedding: float = 0.0
    """Of the first layer's input."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Further facts that decide what a step allocates, where models differ; the defaults are what most models have."""

    scaled_embedding: bool = False
    """Whether the embedding's output is multiplied (Gemma, Granite)."""
    scaled_logits: bool = False
    """Whether the head's output is divided (Granite)."""
    capped_logits: bool = False
    """Whether the head's output is soft-capped (Gemma 2)."""
    norm_after_residual: bool = False
    """Whether the norms stand behind the residual sums (OPT-350m)."""
    parallel_residual: bool = False
    """Whether attention and MLP stand side by side (GPT-NeoX, Phi 2, Falcon)."""
    learned_positions: bool = False
    """Whether positions are rows of a table, so that there are no more than it has (GPT-2, OPT)."""
    rotary_by_window: bool = False
    """Whether layers with a sliding window have rotary frequencies of their own (Gemma 3)."""
    dropouts: Dropouts = Dropouts()
    derived: bool = False
    """Whether the model was read off its modules, being of a family outside the table."""
    assumed: tuple[str, ...] = ()
    """Which facts about its layers had to be guessed then."""


@dataclass(frozen=True)
class Architecture:
    """A whole causal language model.

    `layers[i]` is the index into `blocks` of decoder layer i, so that layers that repeat are described once.
    """

    name: str
    family: str
    """transformers' model_type."""
    hidden: int
    vocab: int
    norm: Literal["rms", "layer"]
    tied: bool
    """Whether the output head shares the embedding's storage."""
    layer_prefix: str
    """Path of the layer list: `model.layers`."""
    blocks: tuple[Block, ...]
    layers: tuple[int, ...]
    before: tuple[Weight, ...]
    """Embeddings and whatever else stands before the first layer."""
    after: tuple[Weight, ...]
    """Final norm and, when untied, the output head."""
    buffers: tuple[Weight, ...] = ()
    """Buffers that live on the device (rotary frequencies)."""
    facts: Facts = Facts()

    def parameters(self) -> Iterator[Weight]:
        """Every parameter once, under the transformers model's own name, in its order; tied weights once."""
        yield from self.before
        for i, block in enumerate(self.layers):
            for weight in self.blocks[block].weights:
                path = f"{self.layer_prefix}.{i}.{weight.path}"
                yield replace(weight, path=path)
        yield from self.after

    @property
    def mixes_experts(self) -> bool:
        """Whether some layer has a mixture of experts."""
        return any(block.experts is not None for block in self.blocks)

    @property
    def table(self) -> Weight:
        """The input embedding, a row for each token, wherever the model keeps it; the head itself where that comes
        first."""
        rows = [w for w in (*self.before, *self.after) if w.shape[0] == self.vocab]
        kinds = (WeightKind.EMBEDDING, WeightKind.HEAD) if self.tied else (WeightKind.EMBEDDING,)
        return next(w for kind in kinds for w in rows if w.kind is kind)

    @property
    def final_norm(self) -> tuple[Weight, ...]:
        """The norm behind the last layer, wherever the model keeps it; empty without one."""
        last = [w for w in (*self.before, *self.after) if w.kind is WeightKind.NORM]
        return tuple(w for w in last if w.owner == last[-1].owner)

    @cached_property
    def counted(self) -> tuple[tuple[Weight, int], ...]:
        """Every distinct weight with how many times it occurs: what sums over the model should use."""
        outside = [(weight, 1) for weight in (*self.before, *self.after)]
        inside = [(w, self.layers.count(i)) for i, block in enumerate(self.blocks) for w in block.weights]
        return tuple(outside + inside)

    @cached_property
    def numel(self) -> int:
        """Number of parameters."""
        return sum(weight.numel * times for weight, times in self.counted)
