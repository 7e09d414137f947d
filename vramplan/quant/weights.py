"""Weights to try a format on: drawn from a distribution, or read from a .safetensors file one tensor at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vramplan.errors import UsageError, nearest, require_installed, unknown
from vramplan.files import user_path

if TYPE_CHECKING:
    import torch

NORMAL, HEAVY = "normal", "heavy-tailed"
DISTRIBUTIONS = (NORMAL, HEAVY)
#: Rows and columns of a drawn matrix: a million values, enough for three digits of every figure.
_DRAWN = (1024, 1024)
#: Degrees of freedom of Student's t: its fourth moment exists and is three times the normal distribution's.
_FREEDOM = 5
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from."""

    name: str
    """As it is shown: the distribution, or the file's name and the tensor's."""
    path: Path | None = None
    """The file; None for drawn weights."""
    tensor: str = ""
    """The one tensor of the file; empty for all its matrices."""
    seed: int = 0
    """Of drawn weights."""

    def tensors(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """Name and values of each matrix, as fp32, one at a time."""
        if self.path is None:
            yield self.name, _drawn(self.name, self.seed)
        else:
            yield from _read(self.path, self.tensor)


def source(text: str, seed: int = 0) -> Source:
    """What `--weights` names: a distribution, FILE.safetensors, or FILE.safetensors:TENSOR. The file must exist."""
    if text in DISTRIBUTIONS:
        return Source(text, seed=seed)
    file, found, tensor = text.partition(f"{_SUFFIX}:")
    path = user_path(f"{file}{_SUFFIX}" if found else text)
    if path.suffix != _SUFFIX:
        raise unknown("--weights", text, (*DISTRIBUTIONS, f"FILE{_SUFFIX}", f"FILE{_SUFFIX}:TENSOR"))
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UsageError(f"--weights: '{path}' {what}", hint=f"give a {_SUFFIX} file, normal or heavy-tailed")
    return Source(f"{path.name}{f':{tensor}' if tensor else ''}", path, tensor)


def require_torch() -> None:
    """CannotRun, naming the extra to install, unless torch and bitsandbytes are installed."""
    hint = "pip install 'vramplan[measure]'; sizes alone (without --weights, --svg and --html) need no library"
    require_installed("quantising weights", ("torch", "bitsandbytes", "safetensors"), hint=hint)


def _drawn(name: str, seed: int) -> "torch.Tensor":
    """Values of standard deviation 1; errors are relative, so the scale does not matter."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(_DRAWN, generator=generator)
    if name == NORMAL:
        return normal
    squares = torch.zeros(_DRAWN)
    for _ in range(_FREEDOM):
        squares += torch.randn(_DRAWN, generator=generator).square_()
    # Student's t: a normal value over the root of an independent chi-squared one's mean; variance freedom/(freedom-2).
    root: float = (_FREEDOM / (_FREEDOM - 2)) ** 0.5
    return normal / (squares / _FREEDOM).sqrt_() / root


def _read(path: Path, wanted: str) -> Iterator[tuple[str, "torch.Tensor"]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in _names(file, path, wanted):
                yield name, _checked(file.get_tensor(name), name, path)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--weights: cannot read '{path}': {reason}", hint=f"give a whole {_SUFFIX} file") from error


def _names(reader: Any, path: Path, wanted: str) -> list[str]:
    """The tensor that is asked for, or every matrix of floating-point numbers, in the file's order."""
    names = list(reader.keys())
    if wanted:
        if wanted not in names:
            some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise UsageError(
                f"--weights: no tensor '{wanted}' in '{path}'", hint=f"{nearest(wanted, names)}it has {some}"
            )
        return [wanted]
    slices = {name: reader.get_slice(name) for name in names}
    matrices = [n for n, s in slices.items() if _is_matrix(s.get_shape()) and s.get_dtype() in _FLOATS]
    if not matrices:
        raise UsageError(
            f"--weights: no matrix of fp32, fp16 or bf16 numbers in '{path}'",
            hint="give an unquantised checkpoint, or name one of its tensors after a colon",
        )
    return matrices


def _is_matrix(shape: list[int]) -> bool:
    return len(shape) == 2 and all(shape)


#: safetensors' names of the element types that bitsandbytes quantises.
_FLOATS = ("F32", "F16", "BF16")


def _checked(tensor: "torch.Tensor", name: str, path: Path) -> "torch.Tensor":
    """As fp32, which is exact from 16 bits. One without numbers to quantise is refused."""
    import torch

    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not tensor.numel() or not tensor.dim():
        what = (
            "is empty"
            if tensor.is_floating_point() and tensor.dim()
            else f"holds {tensor.dtype} of shape {list(tensor.shape)}"
        )
        raise UsageError(f"--weights: '{name}' in '{path}' {what}", hint="name a tensor of fp32, fp16 or bf16 numbers")
    values = tensor.float()
    if not torch.isfinite(values).all():
        raise UsageError(
            f"--weights: '{name}' in '{path}' holds numbers that are not finite",
            hint="give weights of a sound checkpoint",
        )
    return values.reshape(-1, values.shape[-1])
