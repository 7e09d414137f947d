"""Backward, as torch/csrc/autograd/engine.cpp (2.13) runs it.

The newest ready node runs first, gradients that meet are added in place into the first one when nobody else holds it,
and what a node saved dies when the node has run.
"""

from heapq import heappop, heappush
from sys import getrefcount

from vramplan.predict.graph import Frame, Holder, Node, StopRecomputationError, Tensor
from vramplan.predict.tape import Tape


def run_backward(t: Tape, root: Tensor, grad: Tensor | None) -> None:
    """Run the graph below `root`, whose gradient is `grad`; gradients stay in the leaves."""
    start = root.node
    assert start is not None
    _count_uses(start)
    start.gradient = grad
    del grad
    ready: list[tuple[int, Node]] = [(-start.order, start)]
    recording, t.recording = t.recording, False
    autocast, t.autocast = t.autocast, None
    while ready:
        node = heappop(ready)[1]
        outputs = _run(t, node)
        for edge in node.edges:
            output = outputs.pop(0) if outputs else None
            if edge is None:
                continue
            if output is not None:
                _add(t, edge, output)
                del output
            edge.pending -= 1
            if edge.pending == 0:
                heappush(ready, (-edge.order, edge))
    t.recording, t.autocast = recording, autocast


def _count_uses(start: Node) -> None:
    seen = {start}
    stack = [start]
    while stack:
        for edge in stack.pop().edges:
            if edge is not None:
                edge.pending += 1
                if edge not in seen:
                    seen.add(edge)
                    stack.append(edge)


def _run(t: Tape, node: Node) -> list[Tensor | None]:
    """Call a node with its gradient; its saved tensors go when what it returns has its type, the gradient too.

    engine.cpp `call_function`: `validate_outputs` casts to what forward produced, one output after the other. What a
    checkpoint computed again is the node's no longer: it goes before. A node that nothing came to computes nothing and
    hands nothing on (the generated functions ask `any_grad_defined`).
    """
    grad = node.gradient
    node.gradient = None
    if grad is None and not node.parts:
        node.saved = []
        return []
    saved = [_unpack(t, item) if type(item) is Holder else item for item in node.saved]
    t.scope = node.scope
    outputs = list(node.backward(saved, grad))  # type: ignore[arg-type]
    saved = []
    for i, edge in enumerate(node.edges):
        output = outputs[i] if i < len(outputs) else None
        if output is not None and edge is not None and output.kind is not edge.kind:
            outputs[i] = t.like(output, edge.kind, "gradient cast")
    output = None
    saved, node.saved = node.saved, []  # they go with the call, after its gradient
    return outputs


def _add(t: Tape, node: Node, grad: Tensor) -> None:
    """Put a gradient where `node` will find it."""
    old = node.gradient
    if old is None:
        node.gradient = grad
        return
    # input_buffer.cpp `can_accumulate_inplace`: into the first when it is whole and nobody else holds its storage,
    # which the base of a view does
    storage = old.storage
    alone = not old.viewed and getrefcount(old) <= 3 and getrefcount(storage) <= 3
    if storage is None or not alone or storage.bytes != old.numel * old.kind.bytes:
        node.gradient = t.like(old, old.kind, "sum of gradients")


def _unpack(t: Tape, holder: Holder) -> Tensor:
    frame = holder.frame
    if not frame.recomputing:
        _recompute(t, frame)
    return frame.take(holder.index)


def _recompute(t: Tape, frame: Frame) -> None:
    frame.recomputing = True
    before = (t.frame, t.recording, t.autocast, t.casts)
    t.frame, t.recording, t.autocast, t.casts = frame, True, frame.autocast, {}
    # `fork_rng` sets the generator's present state aside meanwhile
    state = frame.random
    aside = None if state is None else t.new(state.shape, state.kind, "generator's state aside")
    try:
        frame.run()
    except StopRecomputationError:
        pass
    finally:
        t.frame, t.recording, t.autocast, t.casts = before
        del aside
