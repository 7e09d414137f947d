"""The Python interface: what the command line does, as functions. Imported at the first use of a name of `vramplan`."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from msgspec import structs

from vramplan.errors import UsageError, VramplanError, unknown
from vramplan.files import user_path
from vramplan.ledger import Component, Phase
from vramplan.record import Device, Prediction, Record, Result, load_result
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline
from vramplan.units import read_size

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, TrainingArguments

    from vramplan.compare import Comparison

__all__ = [
    "Component",
    "Phase",
    "Prediction",
    "Record",
    "Scenario",
    "VramplanError",
    "compare",
    "load",
    "measure",
    "predict",
    "predict_model",
]

Engine = Literal["analytic", "trace"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
DEVICES: tuple[Device, ...] = get_args(Device)


def predict(
    scenario: Scenario,
    engine: Engine = "analytic",
    *,
    device: Device = "cuda",
    budget: int | str | None = None,
    reserve: int | str = 0,
) -> Prediction:
    """What `scenario` will need.

    `analytic` is the closed form: tens of milliseconds, and no torch for a family of the table. `trace` runs the real
    libraries on fake tensors, for seconds; whatever the caller set in torch (autocast, no_grad, defaults) changes
    nothing. Parts of the libraries are replaced meanwhile, so traces in threads run one after the other, and no other
    thread should use torch until they are done; the same holds for the closed form of a family outside the table.
    `budget` is what the process may hold on the card, context included, by default the card's capacity less `reserve`:
    in bytes, or as the flags take them, such as "24GiB".
    """
    return foresee(scenario, engine, device=device, budget=budget, reserve=reserve).prediction


def predict_model(
    model: "PreTrainedModel | PeftModel",
    training_args: "TrainingArguments",
    batch: int | None = None,
    seq: int | None = None,
    *,
    peft_config: "LoraConfig | None" = None,
    gpu: str = "",
    engine: Engine = "analytic",
    device: Device = "cuda",
    budget: int | str | None = None,
    reserve: int | str = 0,
) -> Prediction:
    """What training `model` with transformers' Trainer, or with TRL's SFTTrainer or DPOTrainer, will need.

    The model may be real or on the meta device, plain or quantised by bitsandbytes, prepared or not, with LoRA adapters
    or, with `peft_config`, before a trainer attaches them. Its configuration, quantisation, element types, adapters
    and modules trained whole are read off the object itself. `training_args` are TrainingArguments, SFTConfig or
    DPOConfig, which say whose loop runs. `batch` is the micro-batch (by default the arguments'), of pairs for
    DPOConfig; `seq` the tokens of the longest sample (by default `max_length` of TRL's), `gpu` the card (by default
    this process's own).

    What a scenario cannot say is among the prediction's warnings: several adapters, frozen layers, custom modules.
    Raises a UsageError for what cannot be predicted: other quantisations than bitsandbytes', other peft methods than
    LoRA, unknown optimizers.

        args = TrainingArguments(bf16=True, use_cpu=True)  # use_cpu: where bf16 is asked for and there is no GPU
        prediction = vramplan.predict_model(model, args, batch=2, seq=2048, gpu="rtx4090")
        print(prediction.ledger.peak, prediction.warnings)
    """
    from vramplan.live_model.describe import check_against_model, describe

    described = describe(model, training_args, batch=batch, seq=seq, peft_config=peft_config, gpu=gpu)
    prediction = predict(described.scenario, engine, device=device, budget=budget, reserve=reserve)
    own = check_against_model(prediction, model)
    return replace(prediction, warnings=(*described.warnings, *own, *prediction.warnings))


class Foreseen(NamedTuple):
    """A prediction with the allocations and frees that it sums up."""

    prediction: Prediction
    timeline: Timeline


def foresee(
    scenario: Scenario,
    engine: Engine = "analytic",
    *,
    device: Device = "cuda",
    budget: int | str | None = None,
    reserve: int | str = 0,
) -> Foreseen:
    """What `predict` returns, and the timeline behind it: for explanations and pictures."""
    _check_arguments(scenario, device)
    budget = None if budget is None else _bytes(budget, "budget", least=1)
    reserve = _bytes(reserve, "reserve", least=0)
    if engine == "analytic":
        from vramplan.predict.engine import conclude
        from vramplan.predict.forecast import forecast

        closed = forecast(scenario, device)
        prediction = conclude(scenario, device, closed, budget=budget, reserve=reserve)
        return Foreseen(_with_host(prediction, budget, reserve), closed.timeline)
    if engine == "trace":
        from vramplan.measure.environment import require_libraries, require_stack

        require_libraries("tracing")
        require_stack(scenario)
        from vramplan.measure import trace

        run = trace.run_trace(scenario, device)
        prediction = trace.conclude(scenario, device, run, budget=budget, reserve=reserve)
        return Foreseen(_with_host(prediction, budget, reserve), run.timeline)
    raise unknown("engine", engine, ENGINES)


def _check_arguments(scenario: object, device: object) -> None:
    """Refuse what nobody's type checker saw: a name for a scenario, `cuda:0`."""
    _check_scenario(scenario)
    if device not in DEVICES:
        raise unknown("device", str(device), DEVICES)


def _bytes(size: object, name: str, *, least: int) -> int:
    """The bytes that the argument `name` means, at least `least`."""
    counted = isinstance(size, int) and not isinstance(size, bool) and size >= least
    if not counted and not isinstance(size, str):
        raise UsageError(f"{name}: {size!r} is no number of bytes", hint='give an int above 0, or text such as "24GiB"')
    return read_size(str(size), name, least=least)  # an int by the rule of text: a bare 24 is a unit forgotten


def _check_scenario(scenario: object) -> None:
    if not isinstance(scenario, Scenario):
        hint = f"load it: Scenario.load({scenario!r})" if isinstance(scenario, str) else "Scenario.load makes one"
        raise UsageError(f"{scenario!r:.60} is no Scenario", hint=hint)


def _with_host(prediction: Prediction, budget: int | None, reserve: int) -> Prediction:
    """The prediction with what it asks of the host: managed memory for paged states, and a warning where
    `device_map="auto"` would not leave the model whole on the card."""
    from vramplan.predict.paging import paging
    from vramplan.predict.placement import placement_warning

    scenario = prediction.scenario
    if prediction.device == "cpu":
        return prediction
    warning = placement_warning(scenario, budget=budget, reserve=reserve)
    warnings = (*prediction.warnings, warning) if warning else prediction.warnings
    return replace(prediction, warnings=warnings, managed=paging(scenario).managed)


def measure(
    scenario: Scenario,
    device: Device = "cpu",
    *,
    steps: int = 3,
    timeout: float | None = None,
    memory_limit: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Record:
    """What `scenario` takes: real training steps in a child process, ended after `timeout` seconds.

    A child that fails is an outcome in the record. `memory_limit` caps what PyTorch's allocator may reserve on the GPU.
    `progress` is called with a line of text now and then.
    """
    from vramplan.measure.run import measure as run

    _check_arguments(scenario, device)
    return run(scenario, device=device, steps=steps, timeout=timeout, memory_limit=memory_limit, progress=progress)


def load(path: "str | os.PathLike[str]") -> Prediction | Record:
    """The prediction or record in a file: what `vramplan predict --json` printed, or `vramplan measure --out` wrote."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{path!r:.60} is no file", hint='name one: vramplan.load("record.json")')
    return load_result(user_path(os.fspath(path)))


def compare(a: Result | Scenario, b: Result | Scenario) -> "Comparison":
    """Any two of prediction, record and scenario; a scenario is predicted on the other side's device and torch."""
    from vramplan.compare import compare as side_by_side

    known = next((side for side in (a, b) if isinstance(side, Result)), None)

    def result(side: Result | Scenario) -> Result:
        if isinstance(side, Result):
            return side
        _check_scenario(side)
        if known is None:
            return predict(side)
        return predict(structs.replace(side, torch=known.scenario.torch), device=known.device)

    return side_by_side(result(a), result(b))
