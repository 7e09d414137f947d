"""What would save most: each lever is a changed scenario, and its saving is the difference of two predictions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from vramplan.errors import VramplanError
from vramplan.ledger import Ledger
from vramplan.predict.engine import ledger
from vramplan.record import Prediction
from vramplan.scenario import Checkpointing, Method, QuantType, Scenario
from vramplan.stacks import LossKernel, Outputs, Upcast

Change = tuple[str, Scenario]


@dataclass(frozen=True, slots=True)
class Lever:
    """A change that lowers the peak."""

    label: str
    """The change, as people say it."""
    scenario: Scenario
    """The changed scenario."""
    saves: int
    """Bytes of peak allocated that the change saves, by prediction."""


def biggest_levers(prediction: Prediction, n: int = 3) -> tuple[Lever, ...]:
    """The `n` changes that lower the predicted peak most, the biggest first."""
    return levers(prediction.scenario, prediction, n)


def levers(scenario: Scenario, prediction: Prediction, n: int = 3) -> tuple[Lever, ...]:
    """The `n` changes to `scenario` that lower its peak on the prediction's device most, the biggest first."""
    device = prediction.device
    now = _peak(ledger(scenario, device))
    found = []
    for label, changed in changes(scenario):
        try:
            saves = now - _peak(ledger(changed, device))
        except VramplanError:  # the change leads out of what can be predicted
            continue
        if saves > 0:
            found.append(Lever(label, changed, saves))
    return tuple(sorted(found, key=lambda lever: -lever.saves)[:n])


def _peak(ledger: Ledger) -> int:
    return ledger.peak


def changes(scenario: Scenario) -> Iterator[Change]:
    """Every change that is worth a prediction: the same training, or nearly so, in less memory."""
    for change in _CHANGES:
        found = change(scenario)
        if found is not None:
            yield found


def _double(scenario: Scenario) -> Change | None:
    if not scenario.quant.type.four_bit or scenario.quant.double:
        return None
    return "double quantisation", replace(scenario, quant=replace(scenario.quant, double=True))


def _four_bit(scenario: Scenario) -> Change | None:
    if scenario.quant.type is not QuantType.INT8:
        return None
    quant = replace(scenario.quant, type=QuantType.NF4, double=True)
    return "nf4 instead of int8", replace(scenario, quant=quant)


def _quantize(scenario: Scenario) -> Change | None:
    if scenario.method is not Method.LORA:
        return None
    quant = replace(scenario.quant, type=QuantType.NF4, double=True)
    return "QLoRA (nf4) instead of a 16-bit base", replace(scenario, method=Method.QLORA, quant=quant)


def _attention(scenario: Scenario) -> Change | None:
    if scenario.attention not in ("eager", "sdpa:math"):
        return None
    return f"sdpa instead of {scenario.attention}", replace(scenario, attention="sdpa")


def _checkpointing(scenario: Scenario) -> Change | None:
    if not scenario.method.trains or scenario.checkpointing is not Checkpointing.OFF:
        return None
    return "gradient checkpointing", replace(scenario, checkpointing=Checkpointing.NON_REENTRANT)


def _optimizer(scenario: Scenario) -> Change | None:
    if not scenario.method.trains or "8bit" in scenario.optimizer or scenario.optimizer in ("sgd", "adafactor"):
        return None
    family = next((f for f in ("lion", "rmsprop", "ademamix") if f in scenario.optimizer), "adamw")
    name = {"rmsprop": "rmsprop_bnb_8bit", "ademamix": "paged_ademamix_8bit"}.get(family, f"paged_{family}_8bit")
    return f"optimizer {name}", replace(scenario, optimizer=name)


def _upcast(scenario: Scenario) -> Change | None:
    if not scenario.method.trains or scenario.stack.upcast is Upcast.NONE:
        return None
    return "no fp32 upcast (stack.upcast: none)", replace(scenario, stack=replace(scenario.stack, upcast=Upcast.NONE))


def _outputs(scenario: Scenario) -> Change | None:
    if not scenario.method.trains or scenario.stack.outputs is Outputs.FREED:
        return None
    return "outputs freed before backward", replace(scenario, stack=replace(scenario.stack, outputs=Outputs.FREED))


def _loss(scenario: Scenario) -> Change | None:
    if not scenario.method.trains or scenario.stack.loss is not LossKernel.TORCH:
        return None
    return "fused loss (stack.loss: liger)", replace(scenario, stack=replace(scenario.stack, loss=LossKernel.LIGER))


def _micro_batch(scenario: Scenario) -> Change | None:
    if not scenario.method.trains or scenario.batch < 2 or scenario.batch % 2:
        return None
    half, accum = scenario.batch // 2, scenario.grad_accum * 2
    return f"batch {half} with grad_accum {accum}", replace(scenario, batch=half, grad_accum=accum)


_CHANGES: tuple[Callable[[Scenario], Change | None], ...] = (
    _double,
    _four_bit,
    _quantize,
    _attention,
    _checkpointing,
    _optimizer,
    _upcast,
    _outputs,
    _loss,
    _micro_batch,
)
