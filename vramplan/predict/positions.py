"""What a model makes once per forward for all its layers: rotary tables, the causal mask; and which attention kernel runs."""

from vramplan.architecture import Attention
from vramplan.attention import AttentionInput, resolve
from vramplan.predict.operations import cast
from vramplan.predict.tape import BOOL, FLOAT32, Kind, Tape, Tensor
from vramplan.scenario import DType, Scenario


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


def causal_masks(t: Tape, scenario: Scenario, kind: Kind) -> dict[bool, Tensor | None]:
    """The mask of layers without and with a window: none where the kernel knows causality, else one of every pair.

    transformers 5.17 masking_utils.py: `sdpa_mask` is boolean and one for the whole batch, `eager_mask` a float per sequence.
    """
    attention = scenario.attention
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


def attention_kernels(scenario: Scenario, t: Tape, kind: Kind) -> dict[bool, str]:
    """For layers without and with a window that the sequence leaves: `eager`, `flash_attention_2`, or sdpa's kernel."""
    name = scenario.attention
    if name in ("eager", "flash_attention_2"):
        return {False: name, True: name}
    if not t.cuda and name == "sdpa":
        return dict.fromkeys((False, True), _on_cpu(scenario))
    attention = scenario.architecture.blocks[0].attention
    return {masked: resolve(_call(attention, t, kind, masked=masked), name.partition(":")[2]).kernel.value
            for masked in (False, True)}  # fmt: skip


def _on_cpu(scenario: Scenario) -> str:
    """sdp_utils_cpp.cpp: the CPU's flash kernel takes neither dropout nor values of another width than keys."""
    attention = scenario.architecture.blocks[0].attention
    plain = attention.head_dim == attention.value_dim and not scenario.architecture.facts.get("attention_dropout")
    return "flash" if plain else "math"


def _call(attention: Attention, t: Tape, kind: Kind, *, masked: bool) -> AttentionInput:
    """With a mask transformers repeats keys and values itself (`use_gqa_in_sdpa`)."""
    grouped = attention.heads != attention.kv_heads and not masked
    grouped = grouped and attention.head_dim == attention.value_dim and attention.head_dim <= 256
    computed = DType((t.autocast or kind).name)
    return AttentionInput(computed, attention.head_dim, attention.value_dim, grouped, masked, t.capability)
