"""What a decoder's own code calls, function by function, told to an observer that keeps account of memory.

`Observed` is a mode of torch: while it is active every function of torch that meets a tensor comes here first. It runs
on the meta device, so that shapes, strides (what is a view and what a copy) and element types are torch's own answer,
and tells the observer what happened. A function that is not in the table is told as `opaque`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vramplan.architecture.live_words import Handle, NotObservable, Observer, Spec

#: Under which attribute a meta tensor carries the observer's handle; both die together.
HANDLE = "_observed"
_ANSWER, _RANDOM, _COUNT = "_answer", "_random", "_count"
#: More calls in one layer than any decoder of the table makes by far: a loop over every token.
MAX_CALLS = 10_000

_KINDS = {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool}


def spec(x: torch.Tensor) -> Spec:
    """Shape and element type; what has no name among the observer's types as elements of the same size in all."""
    shape = tuple(x.shape)
    if x.dtype in _KINDS:
        return shape, str(x.dtype).removeprefix("torch.")
    return (*shape, max(1, x.dtype.itemsize // 4)), "float32"


class Observed(TorchFunctionMode):
    """Runs torch's functions on the meta device and tells `observer` what they hold."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call."""
        name = func.__name__
        if name == "__get__":
            return self._attribute(func, args)
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise NotObservable("a loop over every token")
        handler = FUNCTIONS.get(name, Observed._other)
        if torch.is_grad_enabled():
            return handler(self, func, args, kwargs or {})
        with self.observer.unrecorded():
            return handler(self, func, args, kwargs or {})

    # -- handles

    def of(self, x: Any) -> Handle:
        """The handle of a tensor; what nobody made here is a constant of the model."""
        found = getattr(x, HANDLE, None)
        if found is None:
            found = self.observer.constant(*spec(x))
            setattr(x, HANDLE, found)
        return found

    def give(self, x: torch.Tensor, handle: Handle) -> torch.Tensor:
        """`x` with its handle, and in the element type that the observer says it has."""
        kind = getattr(torch, self.observer.kind(handle))
        if x.dtype in _KINDS and x.dtype is not kind:
            x = torch.empty_strided(x.shape, x.stride(), dtype=kind, device="meta")
        setattr(x, HANDLE, handle)
        return x

    def made(self, handle: Handle) -> torch.Tensor:
        """A new meta tensor for a handle."""
        kind = getattr(torch, self.observer.kind(handle))
        return self.give(torch.empty(self.observer.shape(handle), dtype=kind, device="meta"), handle)

    def low(self, x: Any) -> Any:
        """A floating tensor in autocast's type, on the meta device alone."""
        name = self.observer.autocast()
        if name and isinstance(x, torch.Tensor) and x.is_floating_point():
            return x.detach().to(getattr(torch, name))
        return x

    def raised(self, x: torch.Tensor) -> torch.Tensor:
        """A floating tensor as CUDA's autocast hands it to an operation that it runs in fp32."""
        if x.is_floating_point():
            handle = self.observer.raised(self.of(x))
            if handle is not self.of(x):
                return self.give(x.detach().to(torch.float32), handle)
        return x

    # -- what every function shares

    def _attribute(self, func: Any, args: Any) -> Any:
        out = func(*args)
        if isinstance(out, torch.Tensor) and out is not args[0] and getattr(out, HANDLE, None) is None:
            if getattr(func, "__self__", None) is torch.Tensor.data:  # the same memory outside the graph
                return self.give(out, self.observer.detach(self.of(args[0])))
            return self.give(out, self.observer.view(self.of(args[0]), tuple(out.shape)))
        return out

    def _other(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        results = [x for x in _flat(out) if isinstance(x, torch.Tensor)]
        if not results:
            return out
        inputs = [x for x in _flat((args, kwargs)) if isinstance(x, torch.Tensor)]
        if any(result is x for result in results for x in inputs):
            return out
        handles = [self.of(x) for x in inputs]
        differentiable = any(x.is_floating_point() or x.is_complex() for x in results)
        if differentiable and self.observer.tracked(*handles):
            self.observer.doubt(f"torch's {func.__name__}")
        for result, handle in zip(results, self.observer.opaque(handles, list(map(spec, results))), strict=True):
            setattr(result, HANDLE, handle)
        return out


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [x for item in value for x in _flat(item)]
    if isinstance(value, dict):
        return [x for item in value.values() for x in _flat(item)]
    return [value]


Handler = Callable[[Observed, Any, Any, Any], Any]
FUNCTIONS: dict[str, Handler] = {}


def _register(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        FUNCTIONS.update(dict.fromkeys(names, handler))
        return handler

    return add


def _is_view(out: torch.Tensor, x: torch.Tensor) -> bool:
    return bool(out.untyped_storage()._cdata == x.untyped_storage()._cdata)


# -- views and copies


@_register(
    "view", "reshape", "flatten", "transpose", "permute", "unsqueeze", "squeeze", "contiguous", "unflatten", "view_as",
    "reshape_as", "swapaxes", "movedim", "t", "expand", "expand_as", "broadcast_to", "clone", "narrow", "select",
    "__getitem__", "diagonal", "view_as_complex", "view_as_real", "alias", "moveaxis", "swapdims", "ravel",
)  # fmt: skip
def _viewed(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x, out = args[0], func(*args, **kwargs)
    if out is x:
        return out
    observer, before = mode.observer, mode.of(x)
    indices = [i for i in _flat(args[1:]) if isinstance(i, torch.Tensor)]
    shape = spec(out)[0]
    if func.__name__ == "__getitem__" and indices:
        return mode.give(out, observer.gather(before, [mode.of(i) for i in indices], shape))
    if func.__name__ == "clone" or not _is_view(out, x):
        return mode.give(out, observer.copy(before, shape))
    if out.numel() == x.numel():
        return mode.give(out, observer.view(before, shape))
    return mode.give(out, observer.part(before, shape) if out.numel() < x.numel() else observer.expand(before, shape))


@_register("chunk", "split", "unbind", "tensor_split", "split_with_sizes")
def _split(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    outs = func(*args, **kwargs)
    handles = mode.observer.parts(mode.of(args[0]), [tuple(out.shape) for out in outs])
    for out, handle in zip(outs, handles, strict=True):
        setattr(out, HANDLE, handle)
    return outs


@_register("detach")
def _detach(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    return mode.give(func(*args, **kwargs), mode.observer.detach(mode.of(args[0])))


@_register("to", "float", "half", "bfloat16", "type_as", "type", "bool", "int", "long", "double")
def _cast(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x, out = args[0], func(*args, **kwargs)
    if out is x or not isinstance(out, torch.Tensor):
        return out
    if out.dtype is x.dtype:
        return mode.give(out, mode.observer.copy(mode.of(x), tuple(out.shape)))
    if out.is_floating_point() and x.is_floating_point() and out.dtype in _KINDS:
        return mode.give(out, mode.observer.cast(mode.of(x), spec(out)[1]))
    return mode.give(out, mode.observer.constant_made(*spec(out)))


@_register("cat", "concat", "stack", "hstack", "concatenate")
def _joined(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    pieces = args[0] if args else kwargs["tensors"]
    return mode.give(out, mode.observer.join([mode.of(piece) for piece in pieces], *spec(out)))


@_register("repeat", "tile", "repeat_interleave", "flip", "roll", "pad", "tril", "triu")
def _rearranged(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    if out is args[0]:
        return out
    return mode.give(out, mode.observer.rearranged(mode.of(args[0]), spec(out)[0]))


# -- arithmetic


_SCALED = ("mul", "multiply", "div", "true_divide", "divide", "rmul", "truediv", "rdiv", "rtruediv")
_IN_PLACE = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__"}


@_register(
    "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "rsub", "subtract", "mul", "__mul__", "__rmul__",
    "multiply", "div", "__truediv__", "__div__", "__rtruediv__", "__rdiv__", "true_divide", "divide",
)  # fmt: skip
def _arithmetic(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    values = [*args[:2], *(kwargs[key] for key in ("other",) if key in kwargs)]
    tensors = [x for x in values if isinstance(x, torch.Tensor)]
    word = func.__name__.strip("_").removeprefix("r") or func.__name__
    shape, kind = spec(out)
    if len(tensors) == 2:
        a, b = (mode.of(x) for x in tensors)
        if tensors[0].dtype not in _KINDS or tensors[1].dtype not in _KINDS:
            return mode.give(out, mode.observer.complex_product(a, b, shape))
        if 0 in (tensors[0].dim(), tensors[1].dim()) and not mode.observer.tracked(b if tensors[1].dim() == 0 else a):
            tensor = a if tensors[1].dim() == 0 else b
            return mode.give(out, _with_number(mode, word, func.__name__, tensor, kind))
        return mode.give(out, mode.observer.binary(word, a, b, shape, kind))
    return mode.give(out, _with_number(mode, word, func.__name__, mode.of(tensors[0]), kind))


def _with_number(mode: Observed, word: str, name: str, x: Handle, kind: str) -> Handle:
    if word in ("add", "sub", "subtract") and name not in ("__rsub__", "rsub"):
        return mode.observer.shift(x, kind)
    if name in ("__rtruediv__", "__rdiv__"):
        return mode.observer.pointwise(x, "reciprocal", "result", 2)
    return mode.observer.scale(x, kind)


@_register("__iadd__", "__isub__", "__imul__", "__itruediv__", "add_", "sub_", "mul_", "div_", "__idiv__")
def _in_place(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x, other = args[0], args[1] if len(args) > 1 else kwargs.get("other")
    func(*args, **kwargs)
    additive = "add" in func.__name__ or "sub" in func.__name__
    b = mode.of(other) if isinstance(other, torch.Tensor) else None
    setattr(x, HANDLE, mode.observer.in_place(mode.of(x), b, additive))
    return x


@_register("masked_fill_", "clamp_", "copy_", "fill_", "zero_", "clip_", "__setitem__", "index_copy_", "index_fill_")
def _overwritten(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    func(*args, **kwargs)
    x = args[0]
    tensors = [y for y in _flat(args[1:]) if isinstance(y, torch.Tensor)]
    setattr(x, HANDLE, mode.observer.overwritten(mode.of(x), [mode.of(y) for y in tensors]))
    return None if func.__name__ == "__setitem__" else x


@_register("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "einsum")
def _product(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [x for x in _flat(args) if isinstance(x, torch.Tensor)]
    out = func(*[mode.low(x) if not isinstance(x, list | tuple) else [mode.low(y) for y in x] for x in args], **kwargs)
    if len(tensors) != 2:
        handles = [mode.of(x) for x in tensors]
        return mode.give(out, mode.observer.opaque(handles, [spec(out)])[0])
    a, b = tensors
    shape = tuple(out.shape)
    return mode.give(out, mode.observer.matmul(mode.of(a), mode.of(b), shape, _copied(a, shape), _copied(b, shape)))


def _copied(x: torch.Tensor, out: tuple[int, ...]) -> tuple[int, ...]:
    """As what a batched product lays `x` out anew, where its leading dimensions, repeated as the result's, do not
    become one by a view; empty where they do."""
    if x.dim() < 3 or len(out) < 3:
        return ()
    whole = x.expand(*out[:-2], *x.shape[-2:])
    return () if _is_view(whole.reshape(-1, *x.shape[-2:]), x) else tuple(whole.shape)


@_register("baddbmm", "addmm")
def _added_product(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("input", "batch1", "batch2") if func.__name__ == "baddbmm" else ("input", "mat1", "mat2")
    given = dict(zip(names, args, strict=False)) | kwargs
    bias, a, b = (given.pop(name) for name in names)
    out = func(mode.low(bias), mode.low(a), mode.low(b), **given)
    product = mode.observer.matmul(mode.of(a), mode.of(b), tuple(out.shape), (), ())
    return mode.give(out, mode.observer.added_in_product(product, mode.of(bias)))


@_register("linear")
def _linear(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x, weight = args[:2]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    out = func(mode.low(x), mode.low(weight), mode.low(bias))
    handle = None if bias is None else mode.of(bias)
    return mode.give(out, mode.observer.linear(mode.of(x), mode.of(weight), handle))


@_register("_grouped_mm", "grouped_mm")
def _grouped(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x, weight = args[:2]
    out = torch.empty((x.shape[0], weight.shape[-1]), dtype=x.dtype, device="meta")
    offsets = next((y for y in (*args[2:], *kwargs.values()) if isinstance(y, torch.Tensor)), None)
    handles = [] if offsets is None else [mode.of(offsets)]
    return mode.give(out, mode.observer.grouped(mode.of(x), mode.of(weight), handles, tuple(out.shape)))


@_register("conv1d")
def _conv(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    out = func(*map(mode.low, args), **{key: mode.low(value) for key, value in kwargs.items()})
    bias = given.get("bias")
    handle = None if bias is None else mode.of(bias)
    shape = tuple(out.shape)
    return mode.give(out, mode.observer.convolved(mode.of(given["input"]), mode.of(given["weight"]), handle, shape))


# -- functions of each element

#: What each saves for backward, and how many full-size temporaries its gradient needs (torch 2.13 derivatives.yaml).
_POINTWISE: dict[str, tuple[str, int]] = {
    "silu": ("input", 0), "gelu": ("input", 0), "relu": ("result", 0), "sigmoid": ("result", 0), "tanh": ("result", 0),
    "mish": ("input", 0), "elu": ("result", 0), "leaky_relu": ("input", 0), "hardtanh": ("input", 0), "relu6":
    ("result", 0), "exp": ("result", 0), "rsqrt": ("result", 2), "sqrt": ("result", 1), "log": ("input", 0), "abs":
    ("input", 1), "sin": ("input", 1), "cos": ("input", 1), "softplus": ("input", 0), "reciprocal": ("result", 2),
    "square": ("input", 2), "log1p": ("input", 1), "expm1": ("result", 1), "selu": ("result", 0), "erf": ("input", 2),
    "logsigmoid": ("input", 0), "log_sigmoid": ("input", 0), "hardswish": ("input", 0), "log2": ("input", 1),
}  # fmt: skip
#: Those that CUDA's autocast runs in fp32 (ATen/autocast_mode.h AT_FORALL_FP32).
_IN_FP32 = {"exp", "rsqrt", "log", "softplus", "reciprocal", "log1p", "expm1", "log2", "pow", "__pow__", "square"}


@_register(*_POINTWISE, "relu_", "silu_", "sigmoid_")
def _pointwise(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    name = func.__name__
    x = mode.raised(args[0]) if name in _IN_FP32 else args[0]
    out = func(x, *args[1:], **{k: v for k, v in kwargs.items() if k != "inplace"})
    return mode.give(out, mode.observer.pointwise(mode.of(x), name, *_POINTWISE[name.removesuffix("_")]))


@_register("neg", "__neg__", "negative")
def _negative(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    return mode.give(out, mode.observer.scale(mode.of(args[0]), spec(out)[1]))


@_register("pow", "__pow__")
def _power(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    if not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
        return mode._other(func, args, kwargs)
    # pow(2) is computed as x * x, but autocast sees the call all the same
    x = mode.raised(args[0])
    out = func(x, *args[1:], **kwargs)
    return mode.give(out, mode.observer.pointwise(mode.of(x), "power", "input", 2))


@_register("clamp", "clip", "clamp_min", "clamp_max")
def _clamp(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    bounds = sum(value is not None for value in (*args[1:], *kwargs.values()))
    return mode.give(out, mode.observer.clamp(mode.of(args[0]), max(1, bounds), spec(out)[1]))


@_register("softmax")
def _softmax(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    wanted = kwargs.get("dtype")
    x = args[0] if args else kwargs["input"]
    if wanted is None:
        x = mode.raised(x)
        args, kwargs = (x, *args[1:]), {k: v for k, v in kwargs.items() if k != "input"}
    out = func(*args, **kwargs)
    return mode.give(out, mode.observer.softmax(mode.of(x), spec(out)[1]))


@_register("log_softmax")
def _log_softmax(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x = mode.raised(args[0])
    out = func(x, *args[1:], **kwargs)
    return mode.give(out, mode.observer.pointwise(mode.of(x), "log-softmax", "result", 0))


@_register("layer_norm")
def _layer_norm(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    weight, bias = given.get("weight"), given.get("bias")
    x = given["input"]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    handles = [None if y is None else mode.of(y) for y in (weight, bias)]
    return mode.give(out, mode.observer.layer_norm(mode.of(x), *handles))


@_register("rms_norm")
def _rms_norm(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("input", "normalized_shape", "weight", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    weight, x = given.get("weight"), given["input"]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return mode.give(out, mode.observer.fused_rms_norm(mode.of(x), None if weight is None else mode.of(weight)))


@_register("mean", "sum", "norm", "amax", "amin", "logsumexp", "prod", "var", "std")
def _reduced(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    name, x = func.__name__, args[0]
    if name in ("sum", "norm", "prod") and kwargs.get("dtype") is None:
        x = mode.raised(x)
    out = func(x, *args[1:], **kwargs)
    if x.dtype is torch.bool and not out.dim():
        setattr(out, _COUNT, True)
    return mode.give(out, mode.observer.reduced(mode.of(x), *spec(out), name))


@_register("cumsum", "cumprod")
def _cumulated(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    x = args[0] if kwargs.get("dtype") is not None else mode.raised(args[0])
    out = func(x, *args[1:], **kwargs)
    if not out.is_floating_point():
        return mode.give(out, mode.observer.constant_made(*spec(out)))
    return mode.give(out, mode.observer.pointwise(mode.of(x), func.__name__, "nothing", 2))


# -- choices


@_register("maximum", "minimum", "fmax", "fmin")
def _larger(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    return mode.give(out, mode.observer.larger(mode.of(args[0]), mode.of(args[1]), *spec(out)))


@_register("topk", "sort", "max", "min", "median", "cummax")
def _chosen(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    if isinstance(out, torch.Tensor):
        handles = [mode.of(x) for x in args if isinstance(x, torch.Tensor)]
        return mode.give(out, mode.observer.opaque(handles, [spec(out)])[0])
    values, indices = mode.observer.chosen(mode.of(args[0]), tuple(out[0].shape))
    setattr(out[0], HANDLE, values)
    setattr(out[1], HANDLE, indices)
    return out


@_register("gather", "index_select", "take_along_dim")
def _gathered(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    indices = [mode.of(x) for x in _flat((args[1:], kwargs)) if isinstance(x, torch.Tensor)]
    return mode.give(out, mode.observer.gather(mode.of(args[0]), indices, tuple(out.shape)))


@_register("embedding")
def _embedding(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    return mode.give(out, mode.observer.embedding(mode.of(args[1]), tuple(out.shape)))


@_register("where")
def _where(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    branches = [mode.of(x) if isinstance(x, torch.Tensor) else None for x in args[1:3]]
    return mode.give(out, mode.observer.where(mode.of(args[0]), branches, *spec(out)))


@_register("masked_fill")
def _masked(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    mask = args[1] if len(args) > 1 else kwargs["mask"]
    return mode.give(out, mode.observer.masked(mode.of(args[0]), mode.of(mask)))


@_register("dropout")
def _dropout(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    x = given["input"]
    if not given.get("training", True) or not given.get("p", 0.5):
        return x
    out = torch.empty_like(x, memory_format=torch.preserve_format)
    return mode.give(out, mode.observer.dropout(mode.of(x)))


@_register("histc", "bincount")
def _histogram(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    bins = kwargs.get("bins") or kwargs.get("minlength") or (args[1] if len(args) > 1 else 100)
    x = args[0]
    out = torch.empty((bins,), dtype=x.dtype, device="meta")
    return mode.give(out, mode.observer.constant_made(*spec(out)))


@_register("scaled_dot_product_attention")
def _attention(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = dict(zip(names, args, strict=False)) | kwargs
    query, key, value = (given[name] for name in names[:3])
    mask = given.get("attn_mask")
    handle, layout = mode.observer.attention(
        mode.of(query), mode.of(key), mode.of(value), None if mask is None else mode.of(mask),
        dropped=bool(given.get("dropout_p")), grouped=bool(given.get("enable_gqa")), heads_first=query.is_contiguous(),
    )  # fmt: skip
    shape = (*query.shape[:-1], value.shape[-1])
    out = mode.low(torch.empty(shape, dtype=query.dtype, device="meta"))
    if layout == "sequence first" or (layout == "like query" and not query.is_contiguous()):
        batch, heads, seq, dim = shape
        out = torch.empty((batch, seq, heads, dim), dtype=out.dtype, device="meta").transpose(1, 2)
    return mode.give(out, handle)


@_register("cross_entropy")
def _cross_entropy(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = torch.empty((), dtype=torch.float32, device="meta")
    labels = args[1] if len(args) > 1 else kwargs["target"]
    return mode.give(out, mode.observer.cross_entropy(mode.of(mode.raised(args[0])), mode.of(labels)))


# -- what makes constants: factories and comparisons


@_register(
    "arange", "zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros",
    "new_ones", "new_empty", "new_full", "tensor", "eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__",
    "__le__", "__gt__", "__ge__", "logical_and", "logical_or", "logical_not", "__and__", "__or__", "__invert__",
    "bitwise_and", "bitwise_or", "bitwise_not", "argsort", "argmax", "argmin", "one_hot", "isin", "eye",
    "linspace", "randn", "floor_divide", "__floordiv__", "remainder", "__mod__", "searchsorted", "isnan",
    "isinf", "new_tensor", "floor", "ceil", "round", "sign",
)  # fmt: skip
def _constant(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    if not isinstance(out, torch.Tensor):
        return out
    if args and getattr(args[0], _RANDOM, False):  # `torch.rand([]) < layerdrop`: no layer is dropped
        setattr(out, _ANSWER, False)
    if args and getattr(args[0], _COUNT, False):  # `mask.sum() == mask.numel()`: nothing is masked out
        setattr(out, _ANSWER, True)
    return mode.give(out, mode.observer.constant_made(*spec(out)))


@_register("rand")
def _random(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    setattr(out, _RANDOM, True)
    return mode.give(out, mode.observer.constant_made(*spec(out)))


@_register("all", "any", "_is_all_true", "_is_any_true")
def _asked(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    setattr(out, _ANSWER, "all" in func.__name__)
    return mode.give(out, mode.observer.constant_made(*spec(out)))


@_register("__bool__")
def _decided(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    """Whole sequences without padding or packing: what is asked of all positions holds, nothing is odd in any."""
    answer = getattr(args[0], _ANSWER, None)
    if answer is None:
        raise NotObservable("a decision on values")
    return answer


@_register("__contains__")
def _contained(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    """`pad_token_id in input_ids`: nothing is padded."""
    return False


@_register("item", "tolist", "numpy", "__int__", "__float__", "__index__", "nonzero", "unique", "unique_consecutive")
def _valued(mode: Observed, func: Any, args: Any, kwargs: Any) -> Any:
    raise NotObservable(f"values ({func.__name__.strip('_')})")
