"""Which kernel `scaled_dot_product_attention` takes on a card, and why.

The rules are those of torch 2.11-2.13, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp: the order is flash,
efficient, math, and before them cuDNN on compute capability 9.0 and 10.0 (`check_prefer_cudnn_attention`; asked of the
CUDA build by `torch._fused_sdp_choice` and `torch._C._get_sdp_priority_order`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from vramplan.scenario import DType


class Kernel(StrEnum):
    """How attention is computed, which decides what is kept for backward."""

    FLASH = "flash"
    EFFICIENT = "efficient"
    CUDNN = "cudnn"
    MATH = "math"  # the whole [heads, seq, seq] matrix, by ordinary operations


@dataclass(frozen=True, slots=True)
class AttentionInput:
    """What the choice depends on."""

    dtype: DType
    """Of query, key and value as the kernel gets them: float32 without autocast over an fp32 residual stream."""
    head_dim: int
    value_dim: int
    grouped: bool
    """Whether key and value come with fewer heads (`enable_gqa`)."""
    masked: bool
    """Whether an explicit mask is given (sliding window shorter than the sequence, padding), not `is_causal`."""
    capability: tuple[int, int]
    """Compute capability of the card."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A kernel and the reason that the better ones were not taken; the reason is empty where none is better."""

    kernel: Kernel
    reason: str = ""
    refused: str = ""
    """Why torch refuses a kernel that the scenario names; empty where it does not."""
    repeated: bool = False
    """Whether the kernel that the scenario names takes grouped queries only with keys and values repeated for them."""

    @property
    def warning(self) -> str:
        """What to tell the user; empty unless the kernel is refused or the full score matrix is kept."""
        if self.repeated and not self.refused:
            return (
                f"attention: sdpa:{self.kernel} knows no grouped queries: keys and values are taken to be repeated for"
                " them; where the code does not repeat them, torch stops the run"
            )
        if self.refused:
            return f"attention: sdpa:{self.kernel} stops the run with 'No available kernel': {self.refused}"
        if self.kernel is not Kernel.MATH:
            return ""
        return f"attention falls back to the math kernel, which keeps every [heads, seq, seq] matrix: {self.reason}"


#: The fused kernels want as many key heads as query heads, or `enable_gqa` (sdp_utils.cpp).
LEFT_TO_BROADCASTING = Choice(Kernel.MATH, "the model leaves fewer key heads to broadcasting")
#: Rows of a mask are copied into ones of a multiple of so many elements for the efficient kernel
#: (aten/src/ATen/native/transformers/attention.cpp `preprocess_mask`).
MASK_ALIGNMENT = 8
#: Compute capability since which the efficient kernel knows bfloat16 (`check_tensor_dtype`).
BFLOAT16_SINCE = (8, 0)
#: Compute capability since which the flash kernels run (`check_flash_attention_hardware_support`).
_FLASH_SINCE = (8, 0)
#: Largest head of the flash kernels (`check_flash_attention_head_dim_size`).
_FLASH_HEAD = 256
#: Compute capabilities on which cuDNN's kernels come before all others (`check_prefer_cudnn_attention`).
_PREFERS_CUDNN = ((9, 0), (10, 0))
#: Compute capability since which cuDNN's kernels run (`check_sm_version`).
_CUDNN_SINCE = (8, 0)
#: Largest head of cuDNN's kernels, by compute capability where it is not the last (`check_cudnn_tensor_shapes`).
_CUDNN_HEAD = {(9, 0): 256}
_CUDNN_HEAD_ELSEWHERE = 128
#: Keys' and values' heads that cuDNN takes beyond that, on the cards that prefer it: DeepSeek's.
_CUDNN_LATENT = (192, 128)


def resolve(call: AttentionInput, pinned: str = "") -> Choice:
    """The kernel for `call`; `pinned` is the part after `sdpa:` of a scenario that names one."""
    if pinned:
        named = Kernel(pinned)
        repeated = named is Kernel.EFFICIENT and call.grouped
        return Choice(named, "named by the scenario", _refused(call, named), repeated)
    if call.capability in _PREFERS_CUDNN and not _refuses_cudnn(call):
        return Choice(Kernel.CUDNN)
    no_flash = _refuses_flash(call)
    if not no_flash:
        return Choice(Kernel.FLASH)
    no_efficient = _refuses_efficient(call)
    if not no_efficient:
        return Choice(Kernel.EFFICIENT, f"flash: {no_flash}")
    return Choice(Kernel.MATH, f"flash: {no_flash}; efficient: {no_efficient}")


def _refused(call: AttentionInput, named: Kernel) -> str:
    """Why a kernel that is named takes no such call; whoever names the efficient one repeats grouped heads for it."""
    if named is Kernel.FLASH:
        return _refuses_flash(call)
    if named is Kernel.CUDNN:
        return _refuses_cudnn(call)
    return _refuses_efficient(replace(call, grouped=False)) if named is Kernel.EFFICIENT else ""


def _refuses_cudnn(call: AttentionInput) -> str:
    """Why cuDNN takes no such call; masks and grouped queries it takes."""
    if call.capability < _CUDNN_SINCE:
        return _too_old(call, _CUDNN_SINCE)
    if call.dtype is DType.FLOAT32:
        return "query, key and value are float32"
    sizes = call.head_dim, call.value_dim
    if sizes == _CUDNN_LATENT and call.capability in _PREFERS_CUDNN:
        return ""
    largest = _CUDNN_HEAD.get(call.capability, _CUDNN_HEAD_ELSEWHERE)
    if max(sizes) > largest:
        return f"heads of {max(sizes)} are larger than {largest}"
    odd = _no_multiple(sizes, 8)
    return f"heads of {odd} are no multiple of 8" if odd else ""


def _no_multiple(sizes: tuple[int, int], alignment: int) -> int | None:
    """The first of a key's and a value's head that is no multiple of `alignment`."""
    return next((size for size in sizes if size % alignment), None)


def _too_old(call: AttentionInput, since: tuple[int, int]) -> str:
    own, least = (".".join(map(str, capability)) for capability in (call.capability, since))
    return f"compute capability {own} is below {least}"


def _refuses_flash(call: AttentionInput) -> str:
    if call.capability < _FLASH_SINCE:
        return _too_old(call, _FLASH_SINCE)
    if call.dtype is DType.FLOAT32:
        return "query, key and value are float32"
    if call.masked:
        return "there is an explicit mask"
    if call.head_dim != call.value_dim:
        return f"heads of {call.head_dim} for keys and {call.value_dim} for values"
    if call.head_dim > _FLASH_HEAD:
        return f"heads of {call.head_dim} are larger than {_FLASH_HEAD}"
    return ""


def _refuses_efficient(call: AttentionInput) -> str:
    if call.grouped:
        return "grouped queries (enable_gqa)"
    if call.dtype is DType.BFLOAT16 and call.capability < BFLOAT16_SINCE:
        return "bfloat16 needs compute capability 8.0"
    alignment = 4 if call.dtype is DType.FLOAT32 else 8  # 16 bytes (`check_head_dim_size_mem_efficient`)
    odd = _no_multiple((call.head_dim, call.value_dim), alignment)
    return f"heads of {odd} are not a multiple of {alignment}" if odd else ""
