"""peft: adapter_config.json of a LoRA adapter, beside or apart from the model it belongs to (peft 0.21.2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vramplan.errors import UsageError
from vramplan.importers import hf
from vramplan.importers.imported import Imported
from vramplan.importers.keys import DROPOUT, RANK
from vramplan.importers.source import Source
from vramplan.importers.targets import check_task, read_dora, read_modules, read_saved_modules
from vramplan.importers.vocabulary.peft import PEFT
from vramplan.model_source import resolve_model
from vramplan.scenario import ModelRef

FILE = "adapter_config.json"


def read_peft(content: Mapping[str, Any], *, where: str, base: Path, model: object = None) -> Imported:
    """The scenario that trains such an adapter; how the base model is quantised is in no adapter_config.json."""
    source = Source(content, PEFT, where)
    kind = source.word("peft_type")
    if kind is None or kind.upper() != "LORA":
        source.refuse("peft_type", "is not modelled", hint="LORA is")
    check_task(source, "task_type")
    ref = _base_model(source, base, model)
    source.plain(RANK)
    source.plain(DROPOUT)
    read_dora(source, "use_dora")
    read_modules(source, "target_modules", ref)
    read_saved_modules(source, "modules_to_save", ref)
    source.assume("method", "qlora", "not in the file: nf4 with double quantisation (--method lora: a 16-bit base)")
    for ours, value in (("batch", 1), ("seq", 2048), ("optimizer", "adamw_torch")):
        source.assume(ours, value, "not in the file: vramplan's default")
    return source.finish()


def _base_model(source: Source, base: Path, instead: object) -> ModelRef:
    """base_model_name_or_path: a path or a known name; else the config.json beside the adapter."""
    key = "base_model_name_or_path"
    if instead is not None or not (base / "config.json").is_file():
        return hf.read_model(source, key, base, instead)
    name = source.word(key)
    try:
        found = resolve_model(hf.place(name, base), base=base) if name and _offline(name, base) else None
    except UsageError:
        found = None
    if found is not None and name is not None:
        source.read(key, "model", hf.place(name, base))
        return found
    source.take(
        key,
        "model",
        str(base.resolve()),
        "the config.json beside the adapter",
        note="the config.json beside the adapter",
    )
    return hf.resolved(source, str(base.resolve()), base)


def _offline(name: str, base: Path) -> bool:
    """Whether a name is a path that exists or a model of the catalogue: nothing is fetched when files are at hand."""
    from vramplan.catalog.models import by_hub_id, catalog_names

    try:
        return (base / Path(hf.place(name, base))).exists() or name in catalog_names() or by_hub_id(name) is not None
    except (OSError, ValueError):
        return False
