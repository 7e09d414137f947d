"""The sizes that every decoder has."""

from dataclasses import dataclass

from vramplan.architecture.fields import Fields


@dataclass(frozen=True, slots=True)
class Dims:
    """A decoder's sizes, with the library's defaults filled in."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    activation: str
    tied: bool


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the family's configuration class of transformers 5.17.0 puts where config.json leaves a key out.

    Sizes without a default here must be there: a published config.json always has them, and what the class would put
    is the size of some other model.
    """

    kv_heads: int | None = None
    """None: as many as heads."""
    head_dim: int | None = None
    """None: hidden size over heads, rounded down."""
    activation: str = "silu"
    activation_key: str = "hidden_act"
    tied: bool = False
    vocab: int | None = None
    heads: int | None = None
    even: bool = False
    """Whether the class refuses a hidden size that the heads do not divide."""


def read_dims(fields: Fields, defaults: Defaults) -> Dims:
    """The sizes under the names that most families use."""
    fields.mapping("rope_scaling")  # decides no size, but the library stops at anything else
    hidden = fields.size("hidden_size")
    heads = fields.size("num_attention_heads", missing=defaults.heads)
    if defaults.even:
        fields.divides("num_attention_heads", heads, "hidden_size", hidden)
    kv_heads = fields.size("num_key_value_heads", missing=defaults.kv_heads or heads, null=heads)
    fields.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
    share = fields.at_least_one("num_attention_heads", heads, hidden // heads)
    return Dims(
        hidden=hidden,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=fields.size("head_dim", missing=defaults.head_dim or share, null=share),
        vocab=fields.size("vocab_size", missing=defaults.vocab),
        intermediate=fields.size("intermediate_size"),
        activation=fields.word(defaults.activation_key, missing=defaults.activation),
        tied=fields.flag("tie_word_embeddings", missing=defaults.tied),
    )
