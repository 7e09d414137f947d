"""peft: adapter_config.json of a LoRA adapter, beside or apart from the model it belongs to (peft 0.21.2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vramplan.catalog.models import by_hub_id, catalog_names
from vramplan.errors import UsageError
from vramplan.files import user_path
from vramplan.importers import hf
from vramplan.importers.imported import Imported
from vramplan.importers.keys import DROPOUT, RANK
from vramplan.importers.source import Source
from vramplan.importers.targets import check_task, read_dora, read_modules, read_saved_modules
from vramplan.importers.vocabulary.peft import PEFT
from vramplan.model_source import resolve_model
from vramplan.scenario import ModelRef


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
    named = hf.place(source.word(key) or "", base)
    if (found := _at_hand(named, base)) is not None:
        source.read(key, "model", named)
        return found
    here, beside = str(base.resolve()), "the config.json beside the adapter"
    source.take(key, "model", here, beside, note=beside)
    return hf.resolved(source, here, base)


def _at_hand(name: str, base: Path) -> ModelRef | None:
    """The model of a path that exists, or of a name in the catalogue. None else: with a config.json at hand, nothing is
    fetched."""
    try:
        known = name in catalog_names() or by_hub_id(name) is not None or (base / user_path(name)).exists()
        return resolve_model(name, base=base) if name and known else None
    except (OSError, UsageError):
        return None
