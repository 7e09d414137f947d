"""Mixtures of experts as transformers 5.17 runs them (integrations/moe.py): a router, all experts' products grouped."""

from vramplan.architecture import Experts
from vramplan.predict.activations import activation
from vramplan.predict.expert_adapters import Parameter
from vramplan.predict.gated_mlp import gated_mlp
from vramplan.predict.liger_experts import liger_experts
from vramplan.predict.linear import linear
from vramplan.predict.modules import Modules
from vramplan.predict.operations import (
    add,
    add_in_place,
    cast,
    mul,
    narrow,
    pointwise,
    reshape,
    scale,
    shift,
    softmax,
    split,
)
from vramplan.predict.operations.gradients import own_gradient
from vramplan.predict.operations.indexing import clamp, gather, grouped_product, masked_fill, topk
from vramplan.predict.tape import BOOL, FLOAT32, INT32, INT64, Gradients, Shape, Tape, Tensor
from vramplan.stacks import LayerKernel


def mixture(t: Tape, m: Modules, experts: Experts, x: Tensor, *, family: str) -> Tensor:
    """The mixture's output for [batch, seq, hidden]."""
    outer, t.scope = t.scope, "experts"
    shape = x.shape
    flat = reshape(t, x, (shape[0] * shape[1], shape[2]))
    if family == "deepseek_v2":
        out = _with_shared(t, m, experts, x, flat)
    else:
        logits, weights, indices = _route(t, m, experts, flat, family)
        if m.scores is not None:
            m.scores.append(t.detach(logits))
        out = reshape(t, _routed(t, m, experts, flat, weights, indices), shape)
        del logits  # the mixture's `_`
    t.scope = outer
    return out


def _with_shared(t: Tape, m: Modules, experts: Experts, x: Tensor, flat: Tensor) -> Tensor:
    """DeepseekV2Moe: routed experts, then the shared ones beside them."""
    _logits, weights, indices = _route(t, m, experts, flat, "deepseek_v2")
    out = reshape(t, _routed(t, m, experts, flat, weights, indices), x.shape)
    return add(t, out, gated_mlp(t, m, "mlp.shared_experts", experts.activation, x), "experts")


def _route(t: Tape, m: Modules, experts: Experts, flat: Tensor, family: str) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all experts (which the mixture's `_` keeps), weights of the best of them, which these are."""
    if experts.bias:
        return _route_by_best(t, m, experts, flat)
    parameter = Parameter(t, m, "mlp.gate.weight")
    weight = parameter(t)
    if family == "deepseek_v2":
        logits = linear(t, cast(t, flat, FLOAT32, "router input fp32"), cast(t, weight, FLOAT32), None, "router logits")
    else:
        logits = linear(t, flat, weight, None, "router logits")
    probabilities = softmax(t, logits, FLOAT32)
    best, indices = topk(t, probabilities, (flat.shape[0], experts.per_token), "best scores")
    if family == "deepseek_v2":
        weights = scale(t, best, "router weights")
    else:
        weights = _shares(t, best) if experts.shares else best
    if family == "qwen3_moe":
        weights = cast(t, weights, logits.kind, "router weights")
    return logits, weights, indices


def _shares(t: Tape, best: Tensor) -> Tensor:
    """`best /= best.sum(dim=-1, keepdim=True)`: backward wants what was there before, and autograd keeps a copy."""
    rows = (best.shape[0], 1)
    total = t.new(rows, best.kind, "sums of best scores")
    before = t.new(best.shape, best.kind, "best scores before") if t.needs_grad(best) else None
    out = t.view(best, best.shape)
    if before is None:
        return out
    shape, kind = best.shape, best.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_best = t.new(shape, kind, "gradient of best scores")
        quotient = t.new(shape, kind, "gradient of their sums")
        t.new(rows, kind, "gradient of their sums, summed")
        del quotient
        return (to_best,)

    return t.record(out, (best,), t.save((before, total)), backward)


def _route_by_best(t: Tape, m: Modules, experts: Experts, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`GptOssTopKRouter`: the best scores first, then the softmax over these alone."""
    logits = linear(t, flat, m.tensors["mlp.router.weight"], m.tensors["mlp.router.bias"], "router logits")
    best, indices = topk(t, logits, (flat.shape[0], experts.per_token), "best scores")
    return logits, softmax(t, best, best.kind), indices


def _routed(t: Tape, m: Modules, experts: Experts, flat: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
    """The chosen experts' weighted sum, by transformers' own code or by Liger's."""
    if LayerKernel.MLP not in m.liger.kernels:
        return _grouped(t, m, experts, flat, weights, indices)
    down, gate_up = (Parameter(t, m, f"mlp.experts.{name}") for name in ("down_proj", "gate_up_proj"))
    return liger_experts(t, flat, gate_up(t), down(t), weights, indices, experts)


def _grouped(t: Tape, m: Modules, experts: Experts, flat: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
    """`grouped_mm_experts_forward`: tokens copied once per chosen expert and sorted by expert."""
    rows, hidden = indices.shape[0] * indices.shape[1], flat.shape[1]
    down, gate_up = (Parameter(t, m, f"mlp.experts.{name}") for name in ("down_proj", "gate_up_proj"))
    sorted_experts, order = (t.new((rows,), INT64, what) for what in ("experts sorted", "permutation"))
    tokens = _rows(t, flat, t.new((rows,), INT64, "tokens sorted by expert"), "tokens per expert")
    sorted_weights = _rows(t, reshape(t, weights, (rows, 1)), order, "router weights sorted")
    counted = t.new((rows,), INT32 if t.cuda else FLOAT32, "experts as the histogram takes them")
    offsets = t.new((experts.count,), INT32, "offsets")
    sentinel = t.new((rows, 1), BOOL, "rows of no expert")
    first = gate_up(t)
    biases = _biases(t, m, experts, "gate_up_proj_bias", sorted_experts)
    tokens = masked_fill(t, tokens, sentinel, in_place=True)
    out = _product(t, tokens, first, 2 * experts.intermediate, offsets)
    out = masked_fill(t, out if biases is None else add_in_place(t, out, biases), sentinel)
    out = _clamped_gate(t, experts, out) if experts.bias else _gate(t, experts, out)
    second = down(t)
    biases = _biases(t, m, experts, "down_proj_bias", sorted_experts)
    out = _product(t, out, second, hidden, offsets)
    out = masked_fill(t, out if biases is None else add_in_place(t, out, biases), sentinel)
    weighted = mul(t, out, sorted_weights, "weighted output")
    inverse = t.new((rows,), INT64, "inverse permutation")
    weighted = _rows(t, weighted, inverse, "weighted output in order")
    result = _summed(t, weighted, indices.shape)
    result = cast(t, result, flat.kind, "experts' output")
    del sorted_experts, order, counted, inverse, first, second, biases
    return result


def _biases(t: Tape, m: Modules, experts: Experts, name: str, chosen: Tensor) -> Tensor | None:
    """The bias of each row's expert: a row per token and chosen expert."""
    return _rows(t, m.tensors[f"mlp.experts.{name}"], chosen, name) if experts.bias else None


def _gate(t: Tape, experts: Experts, x: Tensor) -> Tensor:
    gate, up = split(t, x, [experts.intermediate] * 2)
    return mul(t, activation(t, experts.activation, gate), up, "act * up")


def _clamped_gate(t: Tape, experts: Experts, x: Tensor) -> Tensor:
    """`GptOssExperts._apply_gate`: gate and up lie interleaved, each is clamped, the gate is `x * sigmoid(1.702 x)`."""
    gate, up = narrow(t, x, experts.intermediate), narrow(t, x, experts.intermediate)
    gate = clamp(t, gate, 1, gate.kind, "gate clamped")
    up = clamp(t, up, 2, up.kind, "up clamped")
    glu = mul(t, gate, pointwise(t, scale(t, gate, "alpha * gate"), "sigmoid", saves="result"), "gate * sigmoid")
    return mul(t, shift(t, up, "up + 1"), glu, "(up + 1) * glu")


def _product(t: Tape, x: Tensor, weight: Tensor, width: int, offsets: Tensor) -> Tensor:
    """`grouped_mm(x.to(weight.dtype), weight)`."""
    return grouped_product(t, cast(t, x, weight.kind, "input cast"), weight, (offsets,), (x.shape[0], width))


def _rows(t: Tape, x: Tensor, indices: Tensor, label: str) -> Tensor:
    return gather(t, x, (indices,), (indices.shape[0], x.shape[1]), label)


def _summed(t: Tape, x: Tensor, chosen: Shape) -> Tensor:
    """`x.view(tokens, chosen, hidden).sum(1)`: the gradient is expanded, and copied to become a matrix again."""
    out = t.new((chosen[0], x.shape[1]), x.kind, "sum over experts")
    return own_gradient(t, x, out, "gradient of every chosen expert")
