"""What depends on the release of PyTorch that runs a scenario, whichever is installed here, if any."""

#: Where a scenario names none. The published measurements that predictions are judged by were made with this release or
#: an earlier one, as far as their bytes tell (reports/public/README.md).
DEFAULT = "2.11"
#: The oldest release with `scaled_dot_product_attention`, and the newest whose code predictions were held against.
OLDEST, NEWEST = "2.0", "2.14"
#: c10/cuda/CUDACachingAllocator.cpp: `BlockComparatorSizeCounterAddress` instead of `BlockComparatorSize`.
_COUNTS_SEGMENTS = (2, 12)
#: aten/src/ATen/cuda/CublasHandlePool.cpp: cuBLASLt and cuBLAS have one workspace between them.
_SHARES_WORKSPACES = (2, 12)
#: The same file, `parseChosenWorkspaceSize`: since when cards of Blackwell (10.x, 12.x) have Hopper's large workspace,
#: and since when every card after Hopper has it (11.0, Thor). Seen in the CUDA builds of 2.11, 2.12.1, 2.13 and 2.14.
_LARGE_ON_BLACKWELL, _LARGE_AFTER_HOPPER = (2, 12), (2, 14)


def release(version: str) -> str:
    """Major and minor number: `2.11` of `2.11.0+cu130`."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def is_newer(torch: str) -> bool:
    """Whether it came after the releases that are known."""
    return _numbers(torch) > _numbers(NEWEST)


def is_older(torch: str) -> bool:
    """Whether it came before the releases that are known."""
    return _numbers(torch) < _numbers(OLDEST)


def youngest_first(torch: str) -> bool:
    """Whether of free blocks of one size that in the youngest segment is handed out, and not that in the oldest.

    Up to 2.11 it is that at the lowest address, and addresses fall from one segment to the next: the driver maps memory
    as Linux does, from the top down. Later releases number the segments instead.
    """
    return _numbers(torch) < _COUNTS_SEGMENTS


def shares_workspaces(torch: str) -> bool:
    """Whether cuBLASLt, which computes products with a bias, takes cuBLAS's workspace and none of its own."""
    return _numbers(torch) >= _SHARES_WORKSPACES


def has_large_workspaces(torch: str, capability: tuple[int, int]) -> bool:
    """Whether cuBLAS's workspaces on a card of this compute capability are the large ones."""
    if capability[0] < 10:
        return capability == (9, 0)
    return _numbers(torch) >= (_LARGE_AFTER_HOPPER if capability[0] == 11 else _LARGE_ON_BLACKWELL)


def _numbers(torch: str) -> tuple[int, ...]:
    return tuple(map(int, release(torch).split(".")))
