"""What each choice of adapter targets and rank costs: trained parameters, adapters, gradients, states, the peak."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from msgspec.structs import replace

from vramplan.architecture import Architecture
from vramplan.errors import UsageError
from vramplan.predict.adapters import check_targets, trainables
from vramplan.predict.engine import predict_analytic
from vramplan.predict.expert_targets import resolve_targets
from vramplan.predict.forecast import ledger
from vramplan.predict.paging import paging
from vramplan.record import Verdict
from vramplan.scenario import ALL_LINEAR, DType, Lora, Scenario

#: Ranks that are shown when none is asked for.
RANKS = (8, 16, 32, 64)
#: Names of the query and value projections, the first set that the model has whole: apart, fused (GPT-NeoX and Falcon,
#: Phi-3, GPT-2), and multi-head latent attention's with the query direct or compressed.
_QUERY_VALUE = (
    ("q_proj", "v_proj"),
    ("query_key_value",),
    ("qkv_proj",),
    ("c_attn",),
    ("q_proj", "kv_b_proj"),
    ("q_b_proj", "kv_b_proj"),
)
#: Parts of the names that modules of attention have in transformers' models.
_ATTENTION = ("attn", "attention")


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of targets at one rank."""

    name: str
    """What the choice is called: `q, v`, `attention`, `mlp`, `all-linear`, or `as given`."""
    targets: tuple[str, ...]
    """As `lora.targets` takes them."""
    rank: int
    parameters: int
    """Trained parameters."""
    adapters: int
    """Bytes of the adapters."""
    gradients: int
    """Bytes of their gradients."""
    optimizer: int
    """Bytes of the optimizer's states on the card."""
    managed: int
    """Bytes of its states in managed memory."""
    peak: int
    """Allocated at the run's peak."""
    verdict: Verdict | None
    """None without a card or budget."""


@dataclass(frozen=True, slots=True)
class Named:
    """Targets and what they are called."""

    name: str
    targets: tuple[str, ...]


def choices(
    scenario: Scenario, ranks: Iterable[int], *, budget: int | None = None, reserve: int = 0
) -> tuple[Choice, ...]:
    """Every choice of targets at every rank; none for a run without adapters, or one that does not train them."""
    if not (scenario.method.adapts and scenario.method.trains):
        return ()
    judged = budget is not None or bool(scenario.gpu)
    return tuple(
        _choice(named, _with(scenario, named, rank), judged=judged, budget=budget, reserve=reserve)
        for named, rank in product(target_choices(scenario), ranks)
    )


def target_choices(scenario: Scenario) -> tuple[Named, ...]:
    """The choices that this model has, and the scenario's own when it is none of them; each means other tensors."""
    found: dict[tuple[object, ...], Named] = {}
    for named in (*_usual(scenario.architecture), Named("as given", scenario.lora.targets)):
        changed = _with(scenario, named, scenario.lora.rank)
        try:
            check_targets(changed.architecture, changed.lora)
        except UsageError:
            if named.name == "as given":
                raise
            continue  # peft refuses this choice for this model, such as dropout on experts
        found.setdefault(tuple(sorted(trainables(changed))), named)
    return tuple(found.values())


def _usual(architecture: Architecture) -> Iterator[Named]:
    paths = list(dict.fromkeys(w.owner for w, _ in architecture.counted if w.adaptable))
    attention = [path for path in paths if _is_attention(path)]
    names = {path.rpartition(".")[2] for path in attention}
    pair = next((pair for pair in _QUERY_VALUE if names.issuperset(pair)), None)
    if pair is not None:
        chosen = tuple(path for path in attention if path.rpartition(".")[2] in pair)
        yield Named("q, v", chosen)
    if attention:
        yield Named("attention", tuple(attention))
    mlp = [path for path in paths if not _is_attention(path)] + _experts(architecture)
    if mlp:
        yield Named("mlp", tuple(mlp))
    yield Named(ALL_LINEAR, (ALL_LINEAR,))


def _is_attention(path: str) -> bool:
    return any(word in part for part in path.split(".")[:-1] for word in _ATTENTION)


def _experts(architecture: Architecture) -> list[str]:
    """The old names of projections that are fused into experts' parameters now, which peft still takes as targets."""
    everything = Lora(rank=1, targets=(ALL_LINEAR,), dropout=0.0, dtype=DType.FLOAT32)
    known = resolve_targets(architecture, everything).known
    return [name for name in known if name != "gate"]  # `gate` is the router, no part of the MLP


def _with(scenario: Scenario, named: Named, rank: int) -> Scenario:
    return replace(scenario, lora=replace(scenario.lora, targets=named.targets, rank=rank))


def _choice(named: Named, scenario: Scenario, *, judged: bool, budget: int | None, reserve: int) -> Choice:
    tensors, states = trainables(scenario), paging(scenario)
    adapters = sum(tensor.bytes * tensor.times for tensor in tensors)
    if judged:
        prediction = predict_analytic(scenario, budget=budget, reserve=reserve)
        peak, verdict = prediction.ledger.peak, prediction.verdict
    else:
        peak, verdict = ledger(scenario).peak, None
    return Choice(
        name=named.name,
        targets=named.targets,
        rank=scenario.lora.rank,
        parameters=sum(tensor.numel * tensor.times for tensor in tensors),
        adapters=adapters,
        gradients=adapters,  # a gradient has its parameter's shape and dtype
        optimizer=states.on_card,
        managed=states.managed,
        peak=peak,
        verdict=verdict,
    )
