"""What a model makes once per forward for all its layers: rotary tables, masks."""

from vramplan.architecture import Architecture
from vramplan.predict.operations import cast
from vramplan.predict.tape import BOOL, FLOAT32, Kind, Tape, Tensor
from vramplan.scenario import Scenario

Tables = tuple[Tensor, Tensor]


def rotary(t: Tape, scenario: Scenario, kind: Kind) -> dict[bool, Tables]:
    """`LlamaRotaryEmbedding.forward`: cosines and sines [1, seq, dim] of element type `kind`.

    For layers without and with a window: the same ones, unless each kind has its own (Gemma 3).
    """
    attention = scenario.architecture.blocks[0].attention
    dim = attention.rotary_dim
    if not dim:
        return {}
    t.scope = "rotary_emb"
    make = _half_tables if attention.sinks else _tables
    kinds = {block.attention.window > 0 for block in scenario.architecture.blocks}
    first = make(t, scenario.seq, dim, kind)
    apart = scenario.architecture.facts.rotary_by_window and len(kinds) > 1
    second = make(t, scenario.seq, dim, kind) if apart else first
    t.scope = ""
    return {False: second, True: first}


def _tables(t: Tape, seq: int, dim: int, kind: Kind) -> Tables:
    half = t.new((1, seq, dim // 2), FLOAT32, "angles")
    t.product()
    whole = t.new((1, seq, dim), FLOAT32, "angles, both halves")
    cos, sin = (_scaled(t, seq, dim, what) for what in ("cos", "sin"))
    result = cast(t, cos, kind, "cos"), cast(t, sin, kind, "sin")
    del half, whole
    return result


def _half_tables(t: Tape, seq: int, dim: int, kind: Kind) -> Tables:
    """`GptOssRotaryEmbedding.forward`: one cosine and one sine serve both halves of a head."""
    angles = t.new((1, seq, dim // 2), FLOAT32, "angles")
    t.product()
    cos, sin = (_scaled(t, seq, dim // 2, what) for what in ("cos", "sin"))
    result = cast(t, cos, kind, "cos"), cast(t, sin, kind, "sin")
    del angles
    return result


def _scaled(t: Tape, seq: int, dim: int, what: str) -> Tensor:
    bare = t.new((1, seq, dim), FLOAT32, what)
    scaled = t.new((1, seq, dim), FLOAT32, f"{what}, scaled")
    del bare
    return scaled


def causal_masks(t: Tape, scenario: Scenario, kind: Kind) -> dict[bool, Tensor | None]:
    """The mask of layers without and with a window: none where the kernel knows causality, else one of every pair.

    transformers 5.17 masking_utils.py: `sdpa_mask` is boolean, a matrix for the batch, or one per sequence where the
    batch came with a mask; `eager_mask` a float per sequence; `flash_attention_mask` the batch's own, of tokens.
    """
    attention = scenario.attention
    masks: dict[bool, Tensor | None] = {False: None, True: None}
    t.scope = "mask"
    for windowed in sorted({block.attention.window > 0 for block in scenario.architecture.blocks}):
        windows = [b.attention.window for b in scenario.architecture.blocks if b.attention.window]
        if attention == "flash_attention_2" and scenario.padding:
            masks[windowed] = t.new((scenario.sequences, scenario.seq), BOOL, "padding mask")
        elif always_masked(scenario) or (
            windowed and attention != "flash_attention_2" and min(windows) <= scenario.seq
        ):
            masks[windowed] = _mask(t, scenario, attention, kind, windowed=windowed)
    t.scope = ""
    return masks


def always_masked(scenario: Scenario) -> bool:
    """Whether layers are handed masks whatever the sequence, those with a window their own."""
    return scenario.attention == "eager" or scenario.padding or broadcasts(scenario.architecture)


def makes_mask(scenario: Scenario) -> bool:
    """Whether the model makes the batch's mask itself where there is none, and its positions of it."""
    return scenario.architecture.family == "opt"


def _mask(t: Tape, scenario: Scenario, attention: str, kind: Kind, *, windowed: bool) -> Tensor:
    seq = scenario.seq
    masked = scenario.masked or makes_mask(scenario)
    allowed = (_pairs_with_mask if masked else _pairs)(t, scenario, windowed=windowed)
    if attention != "eager":
        return allowed
    return t.new((scenario.sequences, 1, seq, seq), kind, "causal mask")


def _pairs(t: Tape, scenario: Scenario, *, windowed: bool) -> Tensor:
    """The causal pairs; those of a window step by step (`and_masks` of the window and of causality)."""
    shape = (1, 1, scenario.seq, scenario.seq)
    if not windowed:
        return t.new(shape, BOOL, "allowed positions")
    near = t.new(shape, BOOL, "positions in the window")
    before = t.new(shape, BOOL, "positions in the window, and all")
    del near
    causal = t.new(shape, BOOL, "causal positions")
    allowed = t.new(shape, BOOL, "allowed positions")
    del causal, before
    return allowed


def _pairs_with_mask(t: Tape, scenario: Scenario, *, windowed: bool) -> Tensor:
    """The causal pairs without those of a padded key, which may differ by sequence (`and_masks`, step by step)."""
    batch, seq = scenario.sequences, scenario.seq
    padding = t.new((batch, seq), BOOL, "padding mask")
    part = _pairs(t, scenario, windowed=windowed)
    causal = t.new((1, 1, seq, seq), BOOL, "causal positions, and all")
    del part
    keys = t.new((batch, 1, 1, seq), BOOL, "keys that are no padding")
    allowed = t.new((batch, 1, seq, seq), BOOL, "allowed positions")
    del causal, keys, padding
    return allowed


def broadcasts(architecture: Architecture) -> bool:
    """Whether fewer key heads are left to broadcasting: Falcon calls sdpa itself, with a mask and without `enable_gqa`.

    models/falcon/modeling_falcon.py.
    """
    attention = architecture.blocks[0].attention
    return architecture.family == "falcon" and attention.kv_heads != attention.heads
