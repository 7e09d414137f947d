"""transformers' own model on the meta device, whose forward tells an observer what it makes and keeps.

Linear layers, decoder layers, the head and the loss are handed to `Surroundings`, which knows about quantisation,
adapters and checkpoints; everything between them is the model's own code, so that locals live as long as they do there.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from vramplan.architecture.live_functions import HANDLE, Observed
from vramplan.architecture.live_words import Handle, NotObservable, Observer
from vramplan.errors import UsageError, VramplanError

#: Where the class of a module whose parameters are made anew keeps the one before.
_PLAIN = "_without_adapters"
#: A layer's output, and what it returns beside it.
Returned = tuple[Handle, Handle | None]


class Surroundings(Protocol):
    """What stands around the model's own code."""

    @property
    def observer(self) -> Observer:
        """Who keeps account."""

    def projection(self, layer: int | None, path: str, *, own_code: bool) -> Callable[[Handle], Handle] | None:
        """The linear layer at `path` (within a decoder layer, or outside all of them).

        None leaves the module to its own code; `own_code` says that it is not that of an ordinary linear layer.
        """

    def parameter(self, layer: int | None, path: str) -> Handle | None:
        """Any other parameter."""

    def adapted(self, layer: int | None, path: str) -> Mapping[str, Callable[[], Handle]]:
        """What a module that is about to run multiplies by instead of its own parameters, by their names."""

    def adapts(self, layer: int | None, path: str) -> tuple[str, ...]:
        """Names of the parameters of the module at `path` that have adapters."""

    def runs(self, layer: int) -> bool:
        """Whether this layer is run, or like one that was."""

    def layer(self, number: int, hidden: Handle, run: Callable[[Handle], Returned]) -> Returned:
        """A decoder layer on its input."""

    def embedded(self, hidden: Handle) -> None:
        """The embedding's output is there."""

    def logits(self, hidden: Handle) -> Handle:
        """The output head."""

    def loss(self, logits: Handle) -> Handle:
        """The causal language model's loss."""

    def without_autocast(self) -> AbstractContextManager[None]:
        """A region that switches autocast off."""


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
    return model.requires_grad_(False)


class LiveModel:
    """One model; `forward` may be called several times, and its layers again by what `Surroundings` keeps of them."""

    def __init__(
        self, config: Mapping[str, Any], attention: str, prefix: str, around: Surroundings, *, training: bool
    ) -> None:
        self._model = _built(json.dumps(config, sort_keys=True), attention)
        self._layers = self._model.get_submodule(prefix)
        self._prefix = prefix
        self._around = around
        self._mode = Observed(around.observer)
        self._training = training
        self._active, self._next = False, 0
        self._shape = _Shape()
        for module in self._model.modules():
            module.__dict__.pop("forward", None)  # of an earlier run
            module.__class__ = getattr(type(module), _PLAIN, type(module))
        self._prepare()

    # -- once

    def _prepare(self) -> None:
        for number, layer in enumerate(self._layers):
            if self._around.runs(number):
                self._replace(layer, number, "")
            layer.forward = partial(self._called, number)
        for path, module in self._model.named_modules():
            if not path.startswith(f"{self._prefix}."):
                self._replace_one(module, None, path)
        head, table = self._model.get_output_embeddings(), self._model.get_input_embeddings()
        head.forward = lambda x: self._mode.made(self._around.logits(self._mode.of(x)))
        table.forward = self._embedding(table)
        self._model.loss_function = self._loss

    def _replace(self, layer: nn.Module, number: int, prefix: str) -> None:
        for path, module in layer.named_modules():
            self._replace_one(module, number, path)

    def _replace_one(self, module: nn.Module, layer: int | None, path: str) -> None:
        ordinary = type(module).forward in (nn.Linear.forward, Conv1D.forward)
        projection = self._around.projection(layer, path, own_code=not ordinary)
        if projection is not None:
            module.forward = partial(self._projected, projection)
        elif names := self._around.adapts(layer, path):
            self._parametrise(module, layer, path, names)
        for name, old in module._parameters.items():
            if old is None:
                continue
            handle = self._around.parameter(layer, f"{path}.{name}" if path else name)
            if handle is not None:
                kind = getattr(torch, self._around.observer.kind(handle))
                new = nn.Parameter(torch.empty(old.shape, dtype=kind, device="meta"), requires_grad=False)
                setattr(new, HANDLE, handle)
                module._parameters[name] = new

    def _parametrise(self, module: nn.Module, layer: int | None, path: str, names: tuple[str, ...]) -> None:
        """While the module runs, adapted parameters are made when it first asks for them, and kept until it ends."""
        own, present = type(module), dict[str, Any]()

        def read(name: str) -> torch.Tensor:
            value = present[name]
            if not isinstance(value, torch.Tensor):
                value = present[name] = self._mode.made(value())
            return value

        def forward(*args: Any, **kwargs: Any) -> Any:
            present.update(self._around.adapted(layer, path))
            try:
                return own.forward(module, *args, **kwargs)
            finally:  # recomputation stops early, by an exception
                present.clear()

        properties = {name: property(partial(_read, read, name)) for name in names}
        module.__class__ = type(own.__name__, (own,), {**properties, _PLAIN: own})
        module.forward = forward

    def _projected(self, projection: Callable[[Handle], Handle], x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return self._mode.made(projection(self._mode.of(x)))

    def _embedding(self, table: nn.Module) -> Callable[..., torch.Tensor]:
        own = type(table).forward

        def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
            out: torch.Tensor = own(table, *args, **kwargs)
            self._around.embedded(self._mode.of(out))
            return out

        return forward

    def _loss(self, logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return self._mode.made(self._around.loss(self._mode.of(logits)))

    # -- a forward pass

    @property
    def checkpoints(self) -> bool:
        """Whether transformers can checkpoint its layers."""
        return bool(self._model.supports_gradient_checkpointing)

    def forward(self, ids: Handle, labels: Handle) -> tuple[Handle, Handle]:
        """Loss and logits."""
        with self._observing(), _explained():
            out = self._model(input_ids=self._mode.made(ids), labels=self._mode.made(labels))
            return self._mode.of(out["loss"]), self._mode.of(out["logits"])

    def hidden_states(self, ids: Handle) -> Handle:
        """The last hidden states."""
        with self._observing(), _explained():
            out = self._model.base_model(input_ids=self._mode.made(ids))
            return self._mode.of(out[0])

    @contextmanager
    def _observing(self) -> Iterator[None]:
        """The mode is active, once; a layer that runs again in backward comes here anew."""
        if self._active:
            yield
            return
        self._active, self._mode.calls, self._next = True, 0, 0
        with ExitStack() as stack:
            stack.callback(self.__dict__.__setitem__, "_active", False)
            self._model.train(self._training)
            files = {type(module).__module__ for module in self._model.modules()}
            for file in (sys.modules[name] for name in files if hasattr(sys.modules[name], "maybe_autocast")):
                stack.enter_context(mock.patch.object(file, "maybe_autocast", self._autocast))
            stack.enter_context(mock.patch.object(torch, "is_autocast_enabled", self._autocasts))
            stack.enter_context(mock.patch.object(torch, "get_autocast_dtype", self._autocast_dtype))
            stack.enter_context(mock.patch.object(torch.autograd.Function, "apply", classmethod(self._applied)))
            stack.enter_context(torch.device("meta"))
            stack.enter_context(self._mode)
            yield

    def _applied(self, function: Any, *args: Any) -> torch.Tensor:
        """`torch.autograd.Function.apply`: forward outside the graph; its own backward runs when it is due."""
        mode, saved = self._mode, list[torch.Tensor]()
        context = SimpleNamespace(save_for_backward=lambda *tensors: saved.extend(tensors))
        with mode.observer.unrecorded():
            out = function.forward(context, *args)
        if not isinstance(out, torch.Tensor):
            raise NotObservable(f"{function.__name__}, whose derivative has several results")
        tensors = [i for i, x in enumerate(args) if isinstance(x, torch.Tensor)]

        def backward(kept: Sequence[Handle], grad: Handle) -> list[Handle | None]:
            with self._observing():
                context.saved_tensors = tuple(map(mode.made, kept))
                grads = function.backward(context, mode.made(grad))
                del context.saved_tensors
            grads = grads if isinstance(grads, tuple) else (grads,)
            return [None if grads[i] is None else mode.of(grads[i]) for i in tensors]

        handles = [mode.of(x) for x in saved]
        saved.clear()
        made = mode.observer.custom(mode.of(out), [mode.of(args[i]) for i in tensors], handles, backward)
        setattr(out, HANDLE, made)
        return out

    def _autocasts(self, *_: Any) -> bool:
        return bool(self._around.observer.autocast())

    def _autocast_dtype(self, *_: Any) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self._around.observer.autocast() or "bfloat16")
        return dtype

    @contextmanager
    def _autocast(self, *_: Any, enabled: bool = True, **__: Any) -> Iterator[None]:
        if enabled:
            yield
            return
        with self._around.without_autocast():
            yield

    # -- a layer

    def _called(self, number: int, *args: Any, **kwargs: Any) -> Any:
        if args:
            hidden, args = args[0], args[1:]
        elif "hidden_states" in kwargs:
            hidden = kwargs.pop("hidden_states")
        else:
            raise NotObservable("layers without hidden states as their first argument")
        if number != self._next:
            raise NotObservable("layers that run in another order than they stand in")
        self._next += 1
        layer, shape = self._layers[number], self._shape

        def run(x: Handle) -> Returned:
            with self._observing():
                self._mode.calls = 0
                out = type(layer).forward(layer, self._mode.made(x), *args, **kwargs)
                return shape.take(out, self._mode)

        out, second = self._around.layer(number, self._mode.of(hidden), run)
        return shape.give(out, second, self._mode)


def _read(read: Callable[[str], torch.Tensor], name: str, _: nn.Module) -> torch.Tensor:
    return read(name)


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever the model's own code makes of tensors without values, or of a configuration that cannot run."""
    try:
        yield
    except (NotObservable, VramplanError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotObservable(f"its code stops: {reason}") from error


class _Shape:
    """Whether a layer returns a tensor or a tuple, and of how many."""

    _length: int | None = None
    """None as long as no layer has run."""

    def take(self, out: Any, mode: Observed) -> Returned:
        """The handles of what the layer returned."""
        if isinstance(out, torch.Tensor):
            self._length = 0
            return mode.of(out), None
        self._length = len(out)
        others = [x for x in out[1:] if isinstance(x, torch.Tensor)]
        return mode.of(out[0]), mode.of(others[0]) if others else None

    def give(self, out: Handle, second: Handle | None, mode: Observed) -> Any:
        """The same kind of thing made of handles."""
        hidden = mode.made(out)
        if not self._length:
            return hidden
        return (hidden, None if second is None else mode.made(second), *[None] * self._length)[: self._length]
