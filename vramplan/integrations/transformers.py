"""A callback for transformers' Trainer (and those of TRL): predicts, compares, and warns before memory runs out.

    from vramplan.integrations.transformers import MemoryCallback

    trainer = Trainer(model=model, args=args, train_dataset=data, callbacks=[MemoryCallback(gpu="rtx4090")])

It reads the allocator's counters, which live on the host: no step waits for it. It resets none of them.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import torch
from msgspec.structs import replace
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vramplan.api import predict, predict_model
from vramplan.errors import VramplanError
from vramplan.integrations.trend import Reading, Trend
from vramplan.live_model.arguments import length_of
from vramplan.record import Prediction
from vramplan.units import GIB, human

#: The first step makes the optimizer's states, so its peak is lower than those after it.
COMPARED_AFTER = 2

_Event = TypeVar("_Event", bound=Callable[..., None])


class Meter(Protocol):
    """Where the figures come from."""

    def read(self) -> Reading:
        """The allocator now."""

    def room(self) -> int:
        """What the allocator can have in all, what it has included."""


class CudaMeter:
    """torch's CUDA allocator on the current device."""

    def read(self) -> Reading:
        """The counters, which are not reset."""
        cuda = torch.cuda
        return Reading(cuda.memory_allocated(), cuda.max_memory_allocated(), cuda.max_memory_reserved())

    def room(self) -> int:
        """What the driver has free, and what the allocator has already."""
        free, _ = torch.cuda.mem_get_info()
        return int(free) + torch.cuda.memory_reserved()


def _harmless(event: _Event) -> _Event:
    """An event whose errors become one line: training goes on, unwatched."""

    @wraps(event)
    def guarded(self: "MemoryCallback", *args: Any, **kwargs: Any) -> None:
        if self.stopped:
            return
        try:
            event(self, *args, **kwargs)
        except Exception as error:  # whatever it is, it is not worth a training run
            self.stop(f"stopped watching memory: {type(error).__name__}: {error}")

    return cast(_Event, guarded)


class MemoryCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Says at the start what the run will need, after the first steps what it took, and later where it is heading.

    `batch`, `seq`, `gpu`, `budget` and `reserve` are those of `vramplan.predict_model`. Where nothing says how long a
    sample is, the first batch does, and the prediction comes after the first step. `say` gets each line (in the main
    process alone); `meter` is where figures come from: the current CUDA device, or nothing without one.

    The Trainer's logs get `vram/allocated_gib`, `vram/peak_gib`, `vram/reserved_gib` and `vram/predicted_peak_gib`.
    """

    def __init__(
        self,
        *,
        batch: int | None = None,
        seq: int | None = None,
        gpu: str = "",
        budget: int | str | None = None,
        reserve: int | str = 0,
        say: Callable[[str], None] = print,
        meter: Meter | None = None,
    ) -> None:
        self.prediction: Prediction | None = None
        """What was predicted at the start; None before, or where nothing could be."""
        self.stopped = False
        """Whether an error ended the watching."""
        self._asked: dict[str, Any] = {"gpu": gpu, "budget": budget, "reserve": reserve}
        self._batch, self._asked_seq = batch, seq
        self._seq: int | None = None
        """Tokens per sample of this run: as asked for, as the arguments say, or as its first batch has."""
        self._say = say
        self._meter = meter or (CudaMeter() if torch.cuda.is_available() else None)
        self._trend: Trend | None = None
        self._shape = (0, 0)
        """Rows and tokens per row of the largest micro-batch of this step."""
        self._largest = (0, 0)
        """The same of all steps."""
        self._evaluated = False
        """Whether this run has evaluated: until then no measured peak has an evaluation in it."""
        self._steps = 0
        """Steps of this run, whatever number the Trainer resumed at."""
        self._hook: Any = None
        self._speaks = True

    @_harmless
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Predict, when the length of a sample is known; begin to look at the batches' shapes."""
        self._speaks = bool(state.is_world_process_zero)
        self._trend, self._steps, self._largest, self.prediction = None, 0, (0, 0), None
        self._evaluated = False
        self._unhook()
        table = model.get_input_embeddings()
        self._hook = table.register_forward_pre_hook(self._see)
        self._seq = self._asked_seq if self._asked_seq is not None else length_of(args)
        if self._seq is not None:
            self._predict(model, args)
        if self._meter is None:
            self._tell("no CUDA device: memory is predicted, nothing is measured")

    @_harmless
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Compare after the first steps; warn when memory is heading out of the card."""
        if self._seq is None and self._shape[1]:
            self._seq = self._shape[1]
            self._predict(model, args)
        self._steps += 1
        tokens = self._shape[0] * self._shape[1]
        if tokens > self._largest[0] * self._largest[1]:
            self._largest = self._shape
        self._shape = (0, 0)
        if self._meter is None:
            return
        if self._trend is None:
            self._trend = Trend(self._meter.room(), self._longest(args))
        reading = self._meter.read()
        if self._steps == COMPARED_AFTER:
            self._compare(reading)
        complete = self._steps >= COMPARED_AFTER
        for line in self._trend.add(state.global_step, reading, tokens if complete else 0):
            self._tell(f"warning: {line}")

    @_harmless
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """From here on the highest mark has an evaluation in it."""
        self._evaluated = True

    @_harmless
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the figures to what is logged, and to the Trainer's history, whose entry was written just before."""
        if logs is None:
            return
        figures = self._figures()
        logs.update(figures)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(figures)

    @_harmless
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model as it was."""
        self._unhook()

    def stop(self, reason: str) -> None:
        """End the watching, with one line."""
        self.stopped = True
        with suppress(Exception):  # `say` may be what failed
            self._unhook()
            self._tell(reason)

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @_harmless
    def _see(self, table: Any, inputs: tuple[Any, ...]) -> None:
        """The shape of a micro-batch that is trained on: tokens' ids on their way into the embedding."""
        ids = inputs[0] if inputs and table.training else None
        if ids is not None and ids.dim() == 2 and ids.numel() > self._shape[0] * self._shape[1]:
            self._shape = (int(ids.shape[0]), int(ids.shape[1]))

    def _predict(self, model: Any, args: TrainingArguments) -> None:
        """Predict and say so; what cannot be predicted is said instead."""
        try:
            self.prediction = predict_model(model, args, self._batch, self._seq, **self._asked)
        except VramplanError as error:
            self._tell(f"no prediction: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            return
        self._tell(_summary(self.prediction))
        for warning in self.prediction.warnings:
            self._tell(f"warning: {warning}")

    def _compare(self, reading: Reading) -> None:
        """The measured peak beside the prediction of the largest batch so far."""
        if self.prediction is None:
            self._tell(f"measured peak {human(reading.peak)} allocated, {human(reading.reserved)} reserved")
            return
        rows, tokens = self._largest
        scenario = self.prediction.scenario
        samples = rows // scenario.stack.sequences_per_sample
        seen = replace(scenario, batch=samples or scenario.batch, seq=tokens or scenario.seq)
        if not self._evaluated:
            seen = replace(seen, evaluation=None)
        expected = predict(seen).ledger.peak
        off = (expected - reading.peak) / reading.peak if reading.peak else 0.0
        self._tell(
            f"measured peak {human(reading.peak)} allocated, {human(reading.reserved)} reserved; predicted"
            f" {human(expected)} for the largest batch so far ({seen.stack.counted(seen.batch)} x {seen.seq:,} tokens):"
            f" {off:+.1%}"
        )

    def _longest(self, args: TrainingArguments) -> int:
        """Tokens of the largest micro-batch that may come."""
        samples = self._batch or int(args.per_device_train_batch_size)
        per_sample = 1 if self.prediction is None else self.prediction.scenario.stack.sequences_per_sample
        return samples * per_sample * (self._seq or 0)

    def _figures(self) -> dict[str, float]:
        figures = {}
        if self._meter is not None:
            reading = self._meter.read()
            figures["vram/allocated_gib"] = reading.allocated
            figures["vram/peak_gib"] = reading.peak
            figures["vram/reserved_gib"] = reading.reserved
        if self.prediction is not None:
            figures["vram/predicted_peak_gib"] = self.prediction.ledger.peak
        return {name: round(size / GIB, 4) for name, size in figures.items()}

    def _tell(self, line: str) -> None:
        if self._speaks:
            self._say(f"vramplan: {line}")


def _summary(prediction: Prediction) -> str:
    """One line: the peak, where it is, and the verdict."""
    scenario, ledger = prediction.scenario, prediction.ledger
    parts = [f"predicted peak {human(ledger.peak)} allocated in {ledger.peak_phase.value}"]
    if prediction.reserved:
        parts.append(f"{human(prediction.peak_reserved)} reserved")
    parts.append(f"batch {scenario.stack.counted(scenario.batch)} x {scenario.seq:,} tokens")
    text = ", ".join(parts)
    verdict = prediction.verdict
    if verdict is None:
        return text
    where = f" on {scenario.gpu}" if scenario.gpu else ""
    return f"{text}; {verdict.word}: {human(verdict.needed)} of {human(verdict.budget)}{where}"
