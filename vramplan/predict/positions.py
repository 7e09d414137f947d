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


def causal_mask(t: Tape, scenario: Scenario, attention: str, kind: Kind) -> Tensor | None:
    """`create_causal_mask`: none for sdpa and flash, a float mask of every pair of positions for eager."""
    windows = {block.attention.window for block in scenario.architecture.blocks}
    windowed = any(0 < window < scenario.seq for window in windows)
    if attention != "eager" and not windowed:
        return None
    pairs = (scenario.batch, 1, scenario.seq, scenario.seq)
    allowed = t.new(pairs, BOOL, "allowed positions")
    if attention != "eager":
        return allowed
    return t.new(pairs, kind, "causal mask")


def attention_kernel(scenario: Scenario, t: Tape, kind: Kind) -> str:
    """`eager`, or the kernel that sdpa takes."""
    name = scenario.attention
    if name == "eager":
        return name
    if ":" in name:
        return name.partition(":")[2]
    if name == "flash_attention_2":
        return "flash"
    if not t.cuda:
        return "flash"
    attention = scenario.architecture.blocks[0].attention
    computed = t.autocast or kind
    if computed in (FLOAT16, BFLOAT16) and t.capability >= (8, 0) and attention.head_dim <= 256:
        return "flash"
    return "math" if attention.heads != attention.kv_heads else "efficient"
