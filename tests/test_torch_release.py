"""What depends on the release of PyTorch."""

import pytest

from vramplan.torch_release import (
    NEWEST,
    OLDEST,
    has_large_workspaces,
    is_newer,
    is_older,
    release,
    shares_workspaces,
    youngest_first,
)


@pytest.mark.parametrize(("version", "short"), [("2.11.0+cu130", "2.11"), ("2.13", "2.13"), ("2.10.0a0+git12", "2.10")])
def test_a_release_is_the_first_two_numbers(version: str, short: str) -> None:
    assert release(version) == short


@pytest.mark.parametrize(("torch", "earlier"), [("2.9", True), ("2.11", True), ("2.12", False), ("3.0", False)])
def test_release_2_12_numbers_segments_and_shares_workspaces(torch: str, earlier: bool) -> None:
    assert youngest_first(torch) == earlier
    assert shares_workspaces(torch) != earlier


@pytest.mark.parametrize(
    ("capability", "releases"),
    [
        ((8, 9), ()),
        ((9, 0), ("2.11", "2.12", "2.13", "2.14")),
        ((10, 0), ("2.12", "2.13", "2.14")),
        ((10, 3), ("2.12", "2.13", "2.14")),
        ((11, 0), ("2.14",)),
        ((12, 0), ("2.12", "2.13", "2.14")),
        ((12, 1), ("2.12", "2.13", "2.14")),
    ],
)
def test_releases_whose_cuda_build_took_33554432_bytes(capability: tuple[int, int], releases: tuple[str, ...]) -> None:
    """One product of two [512, 512] matrices on emulated cards, by the builds of these releases for CUDA 13.0."""
    large = [torch for torch in ("2.11", "2.12", "2.13", "2.14") if has_large_workspaces(torch, capability)]
    assert tuple(large) == releases


def test_releases_outside_those_that_are_known() -> None:
    assert not is_older(OLDEST)
    assert not is_newer(NEWEST)
    assert is_older("1.13")
    assert is_newer("2.15")
    assert is_newer("3.0")
