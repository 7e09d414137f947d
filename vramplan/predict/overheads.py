"""What a run holds on a GPU that is no tensor of the model: the context, and the libraries' workspaces."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from vramplan.architecture import Weight, WeightKind
from vramplan.catalog.gpus import Gpu, gpu
from vramplan.ledger import Basis, Component, Entry, Phase
from vramplan.predict.template import Product
from vramplan.predict.writer import Piece
from vramplan.scenario import Checkpointing, QuantType, Scenario
from vramplan.torch_release import has_large_workspaces, shares_workspaces

#: aten/src/ATen/cuda/CublasHandlePool.cpp (torch 2.13), default workspace `:4096:2:16:8`: 2 x 4096 KiB + 8 x 16 KiB.
CUBLAS_WORKSPACE = (2 * 4096 + 8 * 16) * 1024
#: The same function on Hopper and, in newer releases, on what came after it (`has_large_workspaces`): 8 x 4096 KiB.
CUBLAS_WORKSPACE_LARGE = 8 * 4096 * 1024
#: What cuBLASLt has of its own up to torch 2.11, `getCUDABlasLtWorkspaceSize` in the same file.
LT_WORKSPACE = 1024 * 1024


def card(scenario: Scenario) -> Gpu | None:
    """The card that the scenario names."""
    return gpu(scenario.gpu) if scenario.gpu else None


def budget_of(scenario: Scenario, budget: int | None, reserve: int) -> int | None:
    """Bytes that the run may hold, context included: `budget`, or its card's capacity less `reserve`; None without
    either."""
    target = card(scenario)
    if budget is not None or target is None:
        return budget
    return target.capacity - reserve


def context_of(scenario: Scenario) -> int:
    """Bytes of the context on the scenario's card; 0 where none is named."""
    target = card(scenario)
    return 0 if target is None else target.context


def kept(scenario: Scenario) -> Mapping[Product, Piece]:
    """What the first product of each kind that the run makes leaves in use, in this order: the workspaces of cuBLAS
    and, where it has its own, of cuBLASLt."""
    layers = [weight for block in scenario.architecture.blocks for weight in block.weights]
    everything = [*scenario.architecture.before, *layers, *scenario.architecture.after]
    main, backward = workspaces(card(scenario), scenario.torch)
    made = {Product(backward=False, biased=False): main}
    own = not shares_workspaces(scenario.torch)
    if own and _biased(scenario, everything):
        made[Product(backward=False, biased=True)] = lt_workspace("main")
    if scenario.method.trains:
        made[Product(backward=True, biased=False)] = backward
        checkpointed = scenario.checkpointing is not Checkpointing.OFF  # layers are computed once more in backward
        if own and checkpointed and _biased(scenario, layers):
            made[Product(backward=True, biased=True)] = lt_workspace("backward")
    return made


def kept_by_steps(scenario: Scenario) -> Mapping[Product, Piece]:
    """Those that are not there yet when the run is loaded."""
    found = dict(kept(scenario))
    if while_loading(scenario) is not None:
        del found[Product(backward=False, biased=False)]
    return found


def while_loading(scenario: Scenario) -> Piece | None:
    """What the first product leaves in use where it is made before the first step: DoRA measures B @ A."""
    first, _ = workspaces(card(scenario), scenario.torch)
    return first if scenario.lora.dora and scenario.method.adapts else None


def _biased(scenario: Scenario, weights: list[Weight]) -> bool:
    """Whether any product has a bias; 8-bit ones add it themselves (bitsandbytes 0.50)."""
    kinds = {weight.path: weight.kind for weight in weights}
    products = {WeightKind.HEAD} if scenario.quant.type is QuantType.INT8 else {WeightKind.HEAD, WeightKind.LINEAR}
    return any(
        kinds.get(f"{weight.path.removesuffix('.bias')}.weight", WeightKind.HEAD) in products  # a tied head has none
        for weight in weights
        if weight.kind is WeightKind.BIAS
    )


def lt_workspace(thread: str) -> Piece:
    """cuBLASLt's own workspace of a thread."""
    return Piece(Component.WORKSPACE, f"cuBLASLt workspace of the {thread} thread", LT_WORKSPACE)


def workspaces(target: Gpu | None, torch: str) -> tuple[Piece, Piece]:
    """cuBLAS's workspaces, which torch's allocator holds: one per handle, of the main thread and of autograd's.

    Where they were measured on the card, both together are as large as that; else as the release of torch makes them.
    """
    main, backward = _sizes(target, torch)
    return (
        Piece(Component.WORKSPACE, "cuBLAS workspace of the main thread", main),
        Piece(Component.WORKSPACE, "cuBLAS workspace of the backward thread", backward),
    )


def _sizes(target: Gpu | None, torch: str) -> tuple[int, int]:
    if target is not None and target.workspaces is not None:
        return target.workspaces - target.workspaces // 2, target.workspaces // 2
    large = target is not None and has_large_workspaces(torch, target.capability)
    size = CUBLAS_WORKSPACE_LARGE if large else CUBLAS_WORKSPACE
    return size, size


def workspace_entries(scenario: Scenario, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries, cuBLAS's workspaces on a line of their own where their size was measured on the card.

    They are made by the first matrix product, after loading, and kept: every later phase's peak holds them whole.
    """
    target = card(scenario)
    if target is None or not target.workspaces:
        yield from entries
        return
    held = sum(piece.bytes for piece in workspaces(target, scenario.torch)[: 2 if scenario.method.trains else 1])
    for entry in entries:
        if entry.component is not Component.WORKSPACE or entry.phase is Phase.LOAD:
            yield entry
            continue
        if entry.bytes > held:
            yield replace(entry, bytes=entry.bytes - held)
        note = f"cuBLAS workspaces, {target.context_origin}"
        yield Entry(entry.phase, Component.WORKSPACE, held, Basis.CALIBRATED, note)


def context_entries(target: Gpu | None, phases: tuple[Phase, ...]) -> tuple[Entry, ...]:
    """The context's entry in every phase; none when no card is named, since it differs fivefold between cards."""
    if target is None:
        return ()
    note = target.context_origin
    return tuple(Entry(phase, Component.CONTEXT, target.context, Basis.CALIBRATED, note) for phase in phases)
