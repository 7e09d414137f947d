"""From the `model:` of a scenario to its config.json: catalogue, directory, file, the mapping itself, or the hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from vramplan.architecture.language_part import language_part
from vramplan.catalog.models import by_hub_id, catalog_config, catalog_names
from vramplan.catalog.twins import plain_name, twin
from vramplan.checkpoint_quant import named_quant
from vramplan.errors import UsageError, nearest
from vramplan.files import read_object, user_path
from vramplan.scenario import ModelRef

#: What a browser, or whoever copies from it, has around a model's id.
_PAGE = re.compile(r"(?:https?://)?(?:huggingface\.co|hf\.co)/(.+?)(?:/tree/main)?")
#: The key that config.json itself uses for a model's name.
NAME_KEY = "_name_or_path"


def resolve_model(spec: object, *, base: Path) -> ModelRef:
    """The model that `spec` names; relative paths start at `base`. Local names and files never touch the network."""
    if isinstance(spec, Mapping):
        return _language_model(ModelRef(name=_inline_name(spec), config=_facts(spec), origin="inline"))
    if not isinstance(spec, str) or not spec:
        raise UsageError(
            f"model: {spec!r} is not a model",
            hint="give a catalogue name, a Hugging Face id, a directory with config.json, or the configuration itself",
        )
    if spec in catalog_names():
        return ModelRef(name=spec, config=catalog_config(spec), origin="catalog")
    path = base / user_path(spec)
    if path.exists():
        return _local(path)
    spec = _plain_id(spec)
    if "/" in spec and _is_path(spec):
        raise UsageError(f"model: no such file or directory: {spec}", hint="give a directory that holds a config.json")
    if spec.count("/") == 1:
        return _hub(spec)
    hint = f"{nearest(spec, catalog_names())}`vramplan list models` shows the catalogue"
    raise UsageError(f"model: unknown model '{spec}'", hint=hint)


def _plain_id(spec: str) -> str:
    """A Hugging Face id without its page's address, and without the revision that is meant anyway."""
    page = _PAGE.fullmatch(spec)
    return (page[1] if page else spec).removesuffix("@main")


def _is_path(spec: str) -> bool:
    """Whether a word with a slash can be no Hugging Face id, which is an owner and a name."""
    return spec.startswith((".", "/", "~")) or spec.endswith(("/", ".json")) or spec.count("/") > 1


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the name that somebody's disk gave it."""
    return {key: value for key, value in config.items() if key != NAME_KEY}


def _inline_name(config: Mapping[str, Any]) -> str:
    given = config.get(NAME_KEY)
    name = (Path(given).name if isinstance(given, str) else "") or config.get("model_type")
    return name if isinstance(name, str) else "inline"


def _local(path: Path) -> ModelRef:
    """A directory that holds config.json (and perhaps the weights), or the file itself."""
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() == ".gguf":
        raise _no_configuration(path)
    config = read_object(file, where="model: ", hint="give a config.json, or the directory that holds it")
    directory = file.parent.resolve()
    name = directory.name or "model"
    ref = _language_model(ModelRef(name=name, config=_facts(config), origin="local", path=str(directory)))
    if "model_type" not in ref.config:
        raise UsageError(
            f"model: {file} is neither a model's config.json, which has a 'model_type', nor a scenario",
            hint="give a config.json that transformers wrote, the directory that holds one, or a scenario's file",
        )
    return ref


def _no_configuration(path: Path) -> UsageError:
    gguf = path if path.suffix.lower() == ".gguf" else next(path.glob("*.gguf"), None)
    if gguf is None:
        hint = "give the directory that from_pretrained would load"
        return UsageError(f"model: {path} has no config.json", hint=hint)
    return UsageError(
        f"model: {gguf} is GGUF, llama.cpp's format for inference",
        hint="give the model that it was made from: its Hugging Face id, or a directory with its config.json",
    )


def _language_model(ref: ModelRef) -> ModelRef:
    """The model, or the language model in it where that is one part of several; its note says what is left out."""
    part = language_part(ref.config, ref.name)
    if part is None:
        return ref
    like = "" if part.config is None else f", read as {part.kind}"
    note = _part_note(str(ref.config.get("model_type")), like)
    if part.config is None:
        return msgspec.structs.replace(ref, note=note)
    return msgspec.structs.replace(ref, config=part.config, note=note, path="")  # its weights have other names there


def _hub(repo: str) -> ModelRef:
    """A Hugging Face id: from the catalogue when it is there, else config.json from the hub or its local cache.

    Where neither has it, the catalogue's model of the same dimensions stands in, with a note.
    """
    known = by_hub_id(repo)
    if known is not None:
        return ModelRef(name=known, config=catalog_config(known), origin="catalog", note=_text_part_note(repo, known))
    try:
        file = _fetched(repo)
    except Exception as error:  # the hub client raises many kinds: offline, gated, not found, and it may not be there
        return _stand_in(repo, error)
    ref = _local(file)
    return msgspec.structs.replace(ref, name=repo, origin="hub", path="")


def _stand_in(repo: str, error: Exception) -> ModelRef:
    """The catalogue's model that a name means, whose own config.json `error` kept away; a UsageError without one."""
    known = twin(repo)
    if known is None:
        raise _refused(repo, error) from error
    why = "huggingface_hub is not installed" if isinstance(error, ImportError) else type(error).__name__
    quant = named_quant(repo)
    said = ", and its quantisation (nf4, double)" if quant else ""
    note = (
        f"{repo} is read as the catalogue's {known}, whose dimensions the name says{said}: its own config.json, and"
        f" what that says of a quantisation, could not be had ({why}{'; set HF_TOKEN' if _needs_token(error) else ''})"
    )
    note = "; ".join(filter(None, (note, _text_part_note(repo, known))))
    return ModelRef(name=repo, config={**catalog_config(known), **quant}, origin="hub", note=note)


def _text_part_note(repo: str, known: str) -> str:
    """What the catalogue's model, by its name the text part of a whole, lacks of the one on the hub; else nothing."""
    return _part_note(repo) if known.endswith("-text") else ""


def _part_note(whole: str, like: str = "") -> str:
    """The note of a language model that is one part of several."""
    return (
        f"of {whole} only the language model is predicted{like}: its towers for images or sound, and adapters on them,"
        " are left out"
    )


def _refused(repo: str, error: Exception) -> UsageError:
    meant = nearest(plain_name(repo), catalog_names())
    if isinstance(error, ImportError):
        return UsageError(
            f"model: '{repo}' is not in the catalogue, and huggingface_hub is not installed",
            hint=f"{meant}pip install huggingface_hub, or give a directory with its config.json",
        )
    reason = (str(error).splitlines() or [""])[0]
    token = "set HF_TOKEN to a token that may read it, or " if _needs_token(error) else ""
    return UsageError(
        f"model: '{repo}' is no directory, and the hub gives no config.json: {type(error).__name__}: {reason}",
        hint=f"{meant}{token}give a directory with its config.json",
    )


def _needs_token(error: Exception) -> bool:
    """Whether the hub may have it for those it knows: of gated and private models it says `not found` to others."""
    return any(kind.__name__ == "RepositoryNotFoundError" for kind in type(error).__mro__)


def _fetched(repo: str) -> Path:
    """config.json of a hub id, from the local cache where the hub does not answer.

    The hub is asked once: a download on its own would ask six times over half a minute before it looks at the cache.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    try:
        get_hf_file_metadata(hf_hub_url(repo, "config.json"))
    except Exception:
        cached = try_to_load_from_cache(repo, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        raise
    return Path(hf_hub_download(repo, "config.json"))
