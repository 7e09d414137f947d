"""Facts about a layer of an architecture outside the table: from its configuration object and its weights, no torch."""

from collections.abc import Mapping
from math import prod
from typing import Any

from vramplan.architecture.model import Attention, Block, Experts, Mlp, Weight, WeightKind

#: Under which names configuration classes of transformers 5.17.0 keep what a layer's facts need.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k"),
    "experts_width": ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"),
    "rope_head": ("qk_rope_head_dim",),
    "nope_head": ("qk_nope_head_dim",),
    "value_dim": ("v_head_dim",),
    "latent_kv": ("kv_lora_rank",),
    "activation": ("hidden_act", "hidden_activation", "activation_function", "activation"),
}


def named(config: Any, key: str) -> Any:
    """A configuration's value; None where it has none, or one per layer (which the classes refuse to give as one)."""
    try:
        return getattr(config, key, None)
    except Exception:  # transformers 5.17.0 raises its own kind for values that differ between layers
        return None


class LayerReader:
    """A layer's facts out of a configuration object; remembers which ones it had to assume."""

    def __init__(self, config: Any, hidden: int, *, rotary_dim: int) -> None:
        self.config = config
        self.hidden = hidden
        self.rotary_dim = rotary_dim
        self.assumed: set[str] = set()

    def size(self, fact: str, otherwise: int) -> int:
        """A size by any of its spellings, else `otherwise`, which is then noted as assumed."""
        values = (named(self.config, key) for key in SPELLINGS[fact])
        found = next((value for value in values if type(value) is int and value > 0), None)
        if found is None:
            self.assumed.add(fact)
            return otherwise
        return found

    def windows(self, count: int) -> list[int]:
        """Each layer's sliding window, by `layer_types` where the configuration has them."""
        window, types = named(self.config, "sliding_window"), named(self.config, "layer_types")
        if type(window) is not int:
            return [0] * count
        if not types or len(types) != count:
            return [window] * count
        return [window if kind == "sliding_attention" else 0 for kind in types]

    def block(self, weights: tuple[Weight, ...], window: int) -> Block:
        """The layer with these weights."""
        attention = self.attention(weights, window)
        experts = next((w for w in weights if w.kind is WeightKind.EXPERTS and len(w.shape) == 3), None)
        if experts is None:
            return Block(weights, attention, self.mlp(weights), None)
        mixture = Experts(
            count=experts.shape[0],
            per_token=self.size("per_token", 1),
            intermediate=self.size("experts_width", prod(experts.shape[1:]) // self.hidden),
            activation=self.activation(),
            bias=any(w.kind is WeightKind.EXPERTS and w.path.endswith("bias") for w in weights),
        )
        return Block(weights, attention, None, mixture)

    def attention(self, weights: tuple[Weight, ...], window: int) -> Attention:
        """Ordinary or latent attention with the configuration's heads; what else is special about it stays unknown."""
        heads = self.size("heads", 1)
        if any(weight.module.startswith("kv_a_proj") for weight in weights):
            return self.latent_attention(heads)
        head_dim = self.size("head_dim", max(1, self.hidden // heads))
        modules = {weight.module: weight for weight in weights}
        norm = next((modules[name] for name in ("q_norm", "q_layernorm") if name in modules), None)
        return Attention(
            heads,
            self.size("kv_heads", heads),
            head_dim,
            head_dim,
            rotary_dim=self.rotary_dim,
            window=window,
            softcap=bool(named(self.config, "attn_logit_softcapping")),
            qk_norm="" if norm is None else "head" if norm.shape == (head_dim,) else "full",
            sinks="sinks" in {weight.path.rpartition(".")[2] for weight in weights},
            fused_qkv=not modules.keys() & {"q_proj", "query", "wq", "q_a_proj"},
        )

    def latent_attention(self, heads: int) -> Attention:
        """Multi-head latent attention under DeepSeek's names."""
        rope = self.size("rope_head", self.rotary_dim)
        return Attention(
            heads,
            heads,
            self.size("nope_head", 128) + rope,
            self.size("value_dim", 128),
            rope,
            latent_q=named(self.config, "q_lora_rank") or 0,
            latent_kv=self.size("latent_kv", 512),
        )

    def mlp(self, weights: tuple[Weight, ...]) -> Mlp:
        """A dense feed-forward block; gated when one of its projections is called so."""
        modules = {weight.module for weight in weights}
        return Mlp(
            self.size("intermediate", 4 * self.hidden),
            self.activation(),
            gated=any("gate" in module for module in modules),
            fused_gate="gate_up_proj" in modules,
        )

    def activation(self) -> str:
        """ACT2FN's name of the activation."""
        values = (named(self.config, key) for key in SPELLINGS["activation"])
        found = next((value for value in values if isinstance(value, str)), None)
        if found is None:
            self.assumed.add("activation")
        return found or "silu"
