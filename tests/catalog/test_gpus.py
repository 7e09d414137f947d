import json
from pathlib import Path

import pytest

import vramplan.catalog.gpus as gpus
from vramplan.catalog.gpus import check_gpu, gpu, gpu_names
from vramplan.errors import UsageError
from vramplan.units import GIB, MIB

CARDS = json.loads((Path(gpus.__file__).parent / "gpus.json").read_text())


def test_every_card_is_complete_and_plausible() -> None:
    assert len(gpu_names()) >= 45
    marketing = {card["name"]: card["memory_gib"] for card in CARDS["cards"]}
    for name in gpu_names():
        card = gpu(name)
        assert 0.88 * marketing[name] * GIB < card.capacity < marketing[name] * GIB
        assert card.capacity_origin in ("reported", "rule")
        assert (5, 0) < card.capability < (13, 0)
        assert 10 * MIB < card.context < GIB
        assert card.context_origin


def test_the_rule_is_below_every_reported_card_of_its_kind() -> None:
    for card in CARDS["cards"]:
        if "capacity" in card:
            assert CARDS["share_of_marketing_size"][card["memory"]] < card["capacity"] / (card["memory_gib"] * GIB)


def test_contexts_are_recorded_or_scaled_from_the_record() -> None:
    assert gpu("t4").context == 147_849_216  # 141 MiB, recorded
    # 147,849,216 x 82 / 40 multiprocessors = 303,090,892.8 B, in whole MiB: 289
    assert gpu("rtx3090").context == 289 * MIB
    assert "Tesla T4" in gpu("rtx3090").context_origin


@pytest.mark.parametrize("spelling", ["rtx3090", "RTX 3090", "NVIDIA GeForce RTX 3090", "rtx-3090"])
def test_spellings(spelling: str) -> None:
    assert check_gpu(spelling) == "rtx3090"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("4090", "rtx4090"),
        ("3090ti", "rtx3090ti"),
        ("3060 12gb", "rtx3060-12gb"),
        ("RTX A6000", "a6000"),
        ("RTX 6000 Ada", "rtx6000-ada"),
        ("5000 Ada", "rtx5000-ada"),
        ("NVIDIA RTX 5000 Ada Generation", "rtx5000-ada"),
        ("NVIDIA H20", "h20"),
        ("GTX 1080 Ti", "gtx1080ti"),
        ("A100 80G", "a100-80gb"),
        ("a100-sxm-40gb", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
    ],
)
def test_what_people_and_drivers_call_a_card(spelling: str, name: str) -> None:
    assert check_gpu(spelling) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rtx3091", "rtx3090"),
        ("a100", "choose one of a100-40gb, a100-80gb"),
        ("h100 pcie", "choose one of h100-80gb, h100-nvl"),
        ("rtx 3060", "write rtx3060-12gb if that is yours"),  # the one with 8 GB is not in the catalogue
        ("4090 laptop", "give its memory as a budget (24GiB)"),  # another chip, with 16 GB
        ("rtx", "`vramplan list gpus`"),
        ("", "`vramplan list gpus`"),
    ],
)
def test_unknown_cards_are_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        check_gpu(name)
    assert hint in error.value.hint
