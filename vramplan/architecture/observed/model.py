"""transformers' own model on the meta device, whose forward tells an observer what it makes and keeps.

Linear layers, decoder layers, the head and the loss are handed to `Surroundings`, which knows about quantisation,
adapters and checkpoints; everything between them is the model's own code, so that locals live as long as they do there.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vramplan.architecture.observed.autocast import observed_autocast
from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.leftovers import cleared
from vramplan.architecture.observed.mode import Observed
from vramplan.architecture.observed.observer import Handle, NotObservable
from vramplan.architecture.observed.order import sort_kept_sets, sorted_sets
from vramplan.architecture.observed.own_derivatives import observed_functions
from vramplan.architecture.observed.surroundings import Returned, Surroundings
from vramplan.architecture.observed.wiring import running, wired
from vramplan.errors import UsageError, VramplanError, first_line


@lru_cache(maxsize=8)
def _built(config: str, attention: str) -> Any:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    raw = json.loads(config)
    raw.pop("quantization_config", None)
    settings = CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    settings.use_cache = False
    wanted = "sdpa" if attention == "flash_attention_2" else attention.partition(":")[0]
    if wanted == "sdpa" and not MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]._supports_sdpa:
        if attention != "sdpa":
            raise UsageError(
                f"'{raw['model_type']}' has no attention '{attention}' in transformers", hint="use attention: eager"
            )
        wanted = "eager"  # what transformers takes when nothing is asked for
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16, attn_implementation=wanted)
    model.tie_weights()
    sort_kept_sets(model)
    return model.requires_grad_(False)


class LiveModel:
    """One model; `forward` may be called several times, and its layers again by what `Surroundings` keeps of them."""

    def __init__(
        self, config: Mapping[str, Any], attention: str, prefix: str, around: Surroundings, *, training: bool,
        checkpointed: bool, padded: bool,
    ) -> None:  # fmt: skip
        self._model = _built(json.dumps(config, sort_keys=True), attention)
        self._files = _files(self._model)
        _set_checkpointing(self._model, checkpointed)
        self._layers = self._model.get_submodule(prefix)
        self._places = running(self._model, prefix, around)
        self._around = around
        self._handles = Handles(around.observer, padded=padded)
        self._mode = Observed(self._handles)
        self._training = training
        self._active, self._next = False, 0
        self._results = _Results()

    @property
    def checkpoints(self) -> bool:
        """Whether transformers can checkpoint its layers."""
        return bool(self._model.supports_gradient_checkpointing)

    def forward(self, ids: Handle, labels: Handle, mask: Handle | None) -> tuple[Handle, Handle]:
        """Loss and logits."""
        handles = self._handles
        with self._observing():
            out = self._model(input_ids=handles.made(ids), labels=handles.made(labels), **self._masked(mask))
            return handles.of(out["loss"]), handles.of(out["logits"])

    def hidden_states(self, ids: Handle, mask: Handle | None) -> Handle:
        """The last hidden states."""
        with self._observing():
            out = self._model.base_model(input_ids=self._handles.made(ids), **self._masked(mask))
            return self._handles.of(out[0])

    def _masked(self, mask: Handle | None) -> dict[str, torch.Tensor]:
        return {} if mask is None else {"attention_mask": self._handles.made(mask)}

    @contextmanager
    def _observing(self) -> Iterator[None]:
        """The mode is active, once; a layer that runs again in backward comes here anew."""
        if self._active:
            yield
            return
        self._active, self._mode.calls, self._next = True, 0, 0
        model, around, modules = self._model, self._around, [place.module for place in self._places]
        if model.training is not self._training:
            model.train(self._training)
        for number, layer in enumerate(self._layers):
            layer.forward = partial(self._called, number)
        try:
            wiring, autocast = wired(model, self._places, around, self._handles), observed_autocast(self._files, around)
            functions, sets = observed_functions(self._handles, self._observing), sorted_sets(self._files)
            leftovers = cleared(modules, around.observer)
            with _explained(), wiring, leftovers, autocast, sets, functions, torch.device("meta"), self._mode:
                yield
        finally:
            self._active = False

    def _called(self, number: int, *args: Any, **kwargs: Any) -> Any:
        """A decoder layer, called by the model's code."""
        if args:
            hidden, args = args[0], args[1:]
        elif "hidden_states" in kwargs:
            hidden = kwargs.pop("hidden_states")
        else:
            raise NotObservable("layers without hidden states as their first argument")
        if number != self._next:
            raise NotObservable("layers that run in another order than they stand in")
        self._next += 1
        layer, results, handles = self._layers[number], self._results, self._handles

        def run(x: Handle) -> Returned:
            with self._observing():
                self._mode.calls = 0
                out = type(layer).forward(layer, handles.made(x), *args, **kwargs)
                return results.take(out, handles)

        out, second = self._around.layer(number, handles.of(hidden), run)
        return results.give(out, second, handles)


def _files(model: nn.Module) -> list[ModuleType]:
    """The files of the model's own code."""
    return [sys.modules[name] for name in sorted({type(module).__module__ for module in model.modules()})]


def _set_checkpointing(model: nn.Module, wanted: bool) -> None:
    """Tell the model's code whether its layers are checkpointed, so that it leaves out the cache; it calls them as they
    are, since the checkpoint itself stands around `LiveModel._called`."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer(*args, **kwargs)

    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            setattr(module, "gradient_checkpointing", wanted)  # noqa: B010
            setattr(module, "_gradient_checkpointing_func", call)  # noqa: B010


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever the model's own code makes of tensors without values, or of a configuration that cannot run."""
    try:
        yield
    except (NotObservable, VramplanError):
        raise
    except Exception as error:
        raise NotObservable(f"its code stops: {first_line(error)}") from error


class _Results:
    """Whether layers return a tensor or a tuple, and of how many."""

    _length: int | None = None
    """None as long as no layer has run."""

    def take(self, out: Any, handles: Handles) -> Returned:
        """The handles of what the layer returned."""
        if isinstance(out, torch.Tensor):
            self._length = 0
            return handles.of(out), None
        self._length = len(out)
        others = [x for x in out[1:] if isinstance(x, torch.Tensor)]
        return handles.of(out[0]), handles.of(others[0]) if others else None

    def give(self, out: Handle, second: Handle | None, handles: Handles) -> Any:
        """The same kind of thing made of handles."""
        hidden = handles.made(out)
        if not self._length:
            return hidden
        return (hidden, None if second is None else handles.made(second), *[None] * self._length)[: self._length]
