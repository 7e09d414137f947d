"""The pieces of every family: weights of a linear layer, of a norm, rotary buffers, layer patterns."""

from dataclasses import replace

from vramplan.architecture.fields import Fields
from vramplan.architecture.model import HEAD, Attention, Block, Mlp, Weight, WeightKind

Weights = tuple[Weight, ...]


def linear(
    path: str, inputs: int, outputs: int, *, bias: bool = False, kind: WeightKind = WeightKind.LINEAR
) -> Weights:
    """Weight [out, in] of an nn.Linear, and its bias."""
    weight = Weight(f"{path}.weight", kind, (outputs, inputs))
    return (weight, Weight(f"{path}.bias", WeightKind.BIAS, (outputs,))) if bias else (weight,)


def conv1d(path: str, inputs: int, outputs: int) -> Weights:
    """Weight [in, out] and bias of transformers' Conv1D."""
    weight = Weight(f"{path}.weight", WeightKind.LINEAR, (inputs, outputs), transposed=True)
    return weight, Weight(f"{path}.bias", WeightKind.BIAS, (outputs,))


def rms_norm(path: str, size: int) -> Weights:
    """The scale of an RMS norm."""
    return (Weight(f"{path}.weight", WeightKind.NORM, (size,)),)


def layer_norm(path: str, size: int) -> Weights:
    """Scale and shift of an nn.LayerNorm; both are norm parameters."""
    return tuple(Weight(f"{path}.{name}", WeightKind.NORM, (size,)) for name in ("weight", "bias"))


def embedding(path: str, rows: int, size: int) -> Weights:
    """The table of an nn.Embedding."""
    return (Weight(f"{path}.weight", WeightKind.EMBEDDING, (rows, size)),)


def head(hidden: int, vocab: int, *, tied: bool, bias: bool = False) -> Weights:
    """What the output head owns itself: nothing but the bias when it shares the embedding's table."""
    own = linear(HEAD, hidden, vocab, bias=bias, kind=WeightKind.HEAD)
    return own[1:] if tied else own


def rotary_buffers(path: str, rotary_dim: int, *, prefix: str = "") -> Weights:
    """Inverse frequencies and the copy that is kept of them, both fp32 and both on the device."""
    half = len(range(0, rotary_dim, 2))
    names = (f"{prefix}inv_freq", f"{prefix}original_inv_freq")
    return tuple(Weight(f"{path}.{n}", WeightKind.BUFFER, (half,), dtype="float32") for n in names)


def partial_rotary(fields: Fields, head_dim: int, *, key: str = "partial_rotary_factor", missing: float) -> int:
    """How much of a head is rotated, by the factor in `rope_parameters`, `rope_scaling` or the configuration itself."""
    rope = fields.mapping("rope_scaling") or fields.mapping("rope_parameters")
    factor = Fields(rope or {}, fields.name).number(
        "partial_rotary_factor", missing=fields.number(key, missing=missing)
    )
    if not 0 < factor <= 1:
        raise fields.wrong(key, factor, "above 0 and at most 1")
    return int(head_dim * factor)


def dropout(fields: Fields, key: str, *, missing: float = 0.0) -> float:
    """The share that a dropout drops, 0 where it does nothing; `missing` is the class's default for a key left out."""
    return max(fields.number(key, missing=missing), 0.0)


def spread(
    windows: tuple[int, ...], weights: Weights, attention: Attention, mlp: Mlp
) -> tuple[tuple[Block, ...], tuple[int, ...]]:
    """Blocks that differ only in their window, and which one each layer is."""
    kinds = list(dict.fromkeys(windows))
    blocks = tuple(Block(weights, replace(attention, window=window), mlp, None) for window in kinds)
    return blocks, tuple(map(kinds.index, windows))


def layer_windows(fields: Fields, layers: int, window: int, pattern: tuple[str, ...]) -> tuple[int, ...]:
    """Each layer's window, by `layer_types` where the configuration has it, else by the family's own pattern."""
    types = fields.words("layer_types")
    if types and len(types) != layers:
        raise fields.wrong("layer_types", f"{len(types)} entries", f"one entry per layer ({layers})")
    sizes = {"full_attention": 0, "sliding_attention": window}
    try:
        return tuple(sizes[kind] for kind in types or pattern)
    except KeyError as unknown:
        raise fields.wrong("layer_types", unknown.args[0], f"one of {', '.join(sizes)} in this family") from None
