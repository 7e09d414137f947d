"""The scenarios of the grid: every family of the catalogue, the settings drawn from a fixed seed.

Point `i` depends on nothing but `i`, so a longer grid begins with the points of a shorter one.
"""

from itertools import groupby
from random import Random
from typing import Any

from vramplan.catalog.models import catalog_config, catalog_names

SEED = 20
#: What every point is drawn from: 2 x 3 x 2 x 3 x 2 x 3 settings for each model.
AXES: dict[str, tuple[Any, ...]] = {
    "stack": ("hf-trainer", "script"),
    "checkpointing": (True, "reentrant", False),
    "attention": ("sdpa", "eager"),
    "seq": (512, 1024, 4096),
    "quant.double": (True, False),
    "optimizer": ("adamw_torch", "paged_adamw_8bit", "adamw_8bit"),
}
BATCHES = (1, 4)
#: The card whose kernels both sides mean: with none named they would mean the same one.
GPU = "a100-80gb"


def families() -> dict[str, list[str]]:
    """The catalogue's models by architecture, in alphabetical order."""
    names = sorted(catalog_names(), key=lambda name: (catalog_config(name)["model_type"], name))
    return {family: list(of) for family, of in groupby(names, key=lambda name: catalog_config(name)["model_type"])}


def point(index: int) -> dict[str, Any]:
    """Point `index` of the grid as a scenario file has it; families take turns."""
    pick = Random(f"{SEED}-{index}")
    members = list(families().values())
    chosen = {key: pick.choice(values) for key, values in AXES.items()}
    mapping = {
        "name": f"{index:03}",
        "model": pick.choice(members[index % len(members)]),
        "gpu": GPU,
        "batch": pick.choice(BATCHES),
        "lora": {"rank": 16, "targets": "all-linear", "dropout": pick.choice((0.0, 0.05))},
        "quant": {"type": "nf4", "double": chosen.pop("quant.double")},
        **chosen,
    }
    return _possible(mapping)


def _possible(mapping: dict[str, Any]) -> dict[str, Any]:
    """The point with what the libraries refuse for its model replaced."""
    config = catalog_config(mapping["model"])
    if any(
        "experts" in key for key in config
    ):  # peft has no dropout for adapters of experts, which are bare parameters
        mapping["lora"]["dropout"] = 0.0
    if config["model_type"] == "gpt_oss":  # transformers: no sdpa with attention sinks
        mapping["attention"] = "eager"
    return mapping


def title(mapping: dict[str, Any]) -> str:
    """The point in one line: what distinguishes it from the others."""
    quant, lora = mapping["quant"], mapping["lora"]
    checkpointing = str(mapping["checkpointing"]).lower()
    words = [mapping["name"], mapping["model"], mapping["stack"], f"checkpointing={checkpointing}"]
    words += [mapping["attention"], f"{mapping['batch']}x{mapping['seq']}", "dq" if quant["double"] else "no-dq"]
    return " ".join([*words, mapping["optimizer"], f"dropout={lora['dropout']}"])
