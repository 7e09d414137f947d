"""What a model makes once per forward for all its layers: rotary tables, the causal mask; and which attention kernel runs."""

from vramplan.predict.operations import cast
from vramplan.predict.tape import BOOL, BFLOAT16, FLOAT16, FLOAT32, Kind, Tape, Tensor
from vramplan.scenario import Scenario


def rotary(t: Tape, scenario: Scenario, kind: Kind) -> tuple[Tensor | None, Tensor | None]:
    """`LlamaRotaryEmbedding.forward`: cosines and sines [1, seq, dim] in the hidden states' type."""
    attention = scenario.architecture.blocks[0].attention
    dim = attention.rope_head or attention.rotary_dim
    if not dim:
        return None, None
    t.scope = "rotary_emb"
    half = t.new((1, scenario.seq, dim // 2), FLOAT32, "angles")
    whole = t.new((1, scenario.seq, dim), FLOAT32, "angles, both halves")
    cos, sin = (_scaled(t, scenario.seq, dim, what) for what in ("cos", "sin"))
    result = cast(t, cos, kind, "cos"), cast(t, sin, kind, "sin")
    del half, whole
    t.scope = ""
    return result


def _scaled(t: Tape, seq: int, dim: int, what: str) -> Tensor:
    bare = t.new((1, seq, dim), FLOAT32, what)
    scaled = t.new((1, seq, dim), FLOAT32, f"{what}, scaled")
    del bare
    return scaled


def causal_masks(t: Tape, scenario: Scenario, attention: str, kind: Kind) -> dict[bool, Tensor | None]:
    """The mask of layers without and with a window: none where the kernel knows causality, else one of every pair.

    transformers 5.17 masking_utils.py: `sdpa_mask` is boolean and one for the whole batch, `eager_mask` a float per sequence.
    """
    masks: dict[bool, Tensor | None] = {False: None, True: None}
    t.scope = "mask"
    for windowed in sorted({block.attention.window > 0 for block in scenario.architecture.blocks}):
        windows = [b.attention.window for b in scenario.architecture.blocks if b.attention.window]
        if attention == "eager" or (windowed and attention != "flash_attention_2" and min(windows) < scenario.seq):
            masks[windowed] = _mask(t, scenario, attention, kind)
    t.scope = ""
    return masks


def _mask(t: Tape, scenario: Scenario, attention: str, kind: Kind) -> Tensor:
    seq = scenario.seq
    allowed = t.new((1, 1, seq, seq), BOOL, "allowed positions")
    if attention != "eager":
        return allowed
    return t.new((scenario.batch, 1, seq, seq), kind, "causal mask")


def attention_kernel(scenario: Scenario, t: Tape, kind: Kind) -> str:
    """`eager`, or the kernel that sdpa takes."""
    name = scenario.attention
    if name == "eager":
        return name
    if ":" in name:
        return name.partition(":")[2]
    if name == "flash_attention_2":
        return name
    if not t.cuda:
        return "flash"
    attention = scenario.architecture.blocks[0].attention
    computed = t.autocast or kind
    if computed in (FLOAT16, BFLOAT16) and t.capability >= (8, 0) and attention.head_dim <= 256:
        return "flash"
    return "math" if attention.heads != attention.kv_heads else "efficient"
