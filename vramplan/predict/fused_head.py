"""TRL's fused output head: log-probabilities of the labels from tiles of logits, which backward makes again.

trl 1.16 kernels/chunked_logprob.py and trainer/utils.py `add_fused_lm_head`. On a card its Triton kernels work inside
the tile and take no memory, and only tokens with a label are scored; what it does elsewhere is not written down.
"""

from typing import NamedTuple

from vramplan.errors import CannotRun
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import BOOL, FLOAT32, INT64, Gradients, Kind, Tape, Tensor

#: `TOKEN_CHUNK_SIZE`, and trainer/utils.py `_CHUNKED_LOGPROB_CHUNK_SIZE`: tokens and words of a tile.
TILE_TOKENS, TILE_WORDS = 4096, 32768
#: What a kernel keeps of each token while it goes through the words.
_STATISTICS = ("maximum", "sum", "weighted sum", "sum of squares", "sum of logits", "maximum before", "label's logit")


class HeadOutputs(NamedTuple):
    """What the head returns of each token but the last, [batch, seq - 1]: `FusedCausalLMOutput`."""

    labelled: Tensor
    logs: Tensor
    """Log-probabilities of the labels: what has a gradient."""
    others: tuple[Tensor, ...]
    """Entropies, logits' means where they are asked for, whether the label comes first."""


def tiled_loss(t: Tape, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`SFTTrainer.compute_loss` of hidden states [batch, seq, size] and the head's weight [vocab, size]."""
    found = head_outputs(t, hidden, weight, bias)
    return _sum(t, found.logs)


def head_outputs(t: Tape, hidden: Tensor, weight: Tensor, bias: Tensor | None, *, means: bool = False) -> HeadOutputs:
    """The forward of a model with the head, behind its last layer; `means`: the mean of a token's logits as well."""
    if not t.cuda:
        raise CannotRun(
            "stack.loss: tiled is written down as it runs on a card", hint="--engine trace runs TRL's code for the CPU"
        )
    batch, seq, _ = hidden.shape
    labelled = t.new((batch, seq - 1), BOOL, "tokens with a label")
    picked = _pick(t, _without_last(t, hidden), labelled)
    places = places_of(t, labelled)
    targets = t.new((labelled.numel,), INT64, "labels of the tokens")
    del places
    found = _log_probabilities(t, picked, targets, weight, bias, means=means)
    logs, *others = [_put_back(t, each, labelled) for each in found]
    return HeadOutputs(labelled, logs, tuple(others))


def _without_last(t: Tape, x: Tensor) -> Tensor:
    """`x[:, :-1]`: a view; its gradient is a full tensor of zeros with the slice filled in."""
    batch, seq, size = x.shape
    return own_gradient(t, x, t.view(x, (batch, seq - 1, size)), "slice gradient")


def places_of(t: Tape, truths: Tensor) -> Tensor:
    """Where a mask is true, for all of its dimensions: all places, for that is the most."""
    return t.new((truths.numel, len(truths.shape)), INT64, "places of the tokens")


def _pick(t: Tape, x: Tensor, truths: Tensor) -> Tensor:
    """`x[truths]`, rows behind each other; backward adds them into zeros (cuda/Indexing.cu: sorted by place)."""
    places = places_of(t, truths)
    out = t.new((truths.numel, x.shape[-1]), x.kind, "hidden states of the tokens")
    del places
    if not t.needs_grad(x):
        return out
    shape, tokens = x.shape, truths.numel

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        zeros = t.new(shape, grad.kind, "hidden states' gradient")
        sorting = [t.new((tokens,), INT64, what) for what in ("indices", "order", "indices sorted", "order sorted")]
        del sorting
        return (zeros,)

    return t.record(out, (x,), t.save((truths,)), backward)


def _put_back(t: Tape, x: Tensor, truths: Tensor) -> Tensor:
    """`zeros.masked_scatter(truths, x)`: a number of each token where it belongs."""
    zeros = t.new(truths.shape, x.kind, "zeros of the tokens")
    out = t.new(truths.shape, x.kind, "numbers of the tokens")
    del zeros
    return own_gradient(t, x, out, "gradient of the tokens", saved_for(t, x, truths))


def _sum(t: Tape, logs: Tensor) -> Tensor:
    """The negative sum, over the number of labels."""
    negative = t.new(logs.shape, FLOAT32, "losses of the tokens")
    out = t.new((), FLOAT32, "loss")
    del negative
    return own_gradient(t, logs, out, "losses' gradient")


def _log_probabilities(
    t: Tape, x: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, *, means: bool
) -> tuple[Tensor, ...]:
    """`ChunkedLogProbFunction`: of each token the log-probability of its label, the entropy, with `means` the mean of
    its logits, whether the label comes first."""
    tokens, kind = x.shape[0], t.autocast or x.kind
    statistics = [t.new((tokens,), FLOAT32, what) for what in _STATISTICS]
    tile = t.new((min(tokens, TILE_TOKENS), TILE_WORDS), kind, "logits of a tile")
    variables = _go_through(t, x, weight, bias, kind)
    sums = t.new((tokens,), FLOAT32, "log-sum-exp")
    logs = t.new((tokens,), FLOAT32, "log-probabilities")
    entropy = t.new((tokens,), FLOAT32, "entropies")
    mean = [t.new((tokens,), FLOAT32, "means of logits")] if means else []
    first = t.new((tokens,), BOOL, "tokens whose label comes first")
    del statistics, tile, variables
    if not t.needs_grad(x, weight):
        return logs, entropy, *mean, first
    trained = weight.node is not None
    saved = t.save((x, targets, sums, entropy))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return _gradients(t, saved[0], weight, bias, kind, trained)

    return t.record(logs, (x, weight), saved, backward), entropy, *mean, first


def _gradients(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, kind: Kind, trained: bool) -> Gradients:
    """Each tile again, its gradient in its place, added up in fp32 and cast at the end."""
    to_x = t.new(x.shape, FLOAT32, "hidden states' gradient, fp32")
    to_weight = t.new(weight.shape, FLOAT32, "head's gradient, fp32") if trained else None
    tile = t.new((min(x.shape[0], TILE_TOKENS), TILE_WORDS), kind, "logits of a tile")
    variables = _go_through(t, x, weight, bias, kind, held=True)
    cast_x = to_x if x.kind is FLOAT32 else t.new(x.shape, x.kind, "tokens' gradient")
    cast_weight = to_weight
    if to_weight is not None and weight.kind is not FLOAT32:
        cast_weight = t.new(weight.shape, weight.kind, "head's gradient")
    del tile, to_x, to_weight, variables
    return cast_x, cast_weight


def _go_through(
    t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, kind: Kind, *, held: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """The tiles' products, and what of hidden states, head and bias is cast for them; the head's is `held` in a
    variable until the next tile's is there. Returns what the last tile leaves in variables."""
    vocab, size = weight.shape
    words = [min(TILE_WORDS, vocab - start) for start in range(0, vocab, TILE_WORDS)]
    rows = [min(TILE_TOKENS, x.shape[0] - start) for start in range(0, x.shape[0], TILE_TOKENS)]
    piece = part = None
    for tokens in rows if len(rows) < 4 else (*rows[:2], rows[-1]):  # those between are like the second
        piece = None if x.kind is kind else t.new((tokens, size), kind, "hidden states of a tile, cast")
        for count in words:
            part = None if weight.kind is kind else t.new((count, size), kind, "head of a tile, cast")
            t.product()
            part = part if held else None
            if bias is not None and bias.kind is not kind:
                t.new((count,), kind, "bias of a tile, cast")
    return piece, part
