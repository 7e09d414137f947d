"""A hub id whose hub does not answer: asked once, and the cache is looked into."""

import json
import sys
from pathlib import Path

import pytest

from vramplan import predict
from vramplan.catalog.models import catalog_config
from vramplan.errors import UsageError
from vramplan.model_source import resolve_model
from vramplan.scenario import Scenario

huggingface_hub = pytest.importorskip("huggingface_hub")
httpx = pytest.importorskip("httpx")  # what the hub's client speaks with
REPO = "someone/a-model"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hub, which is down, was asked for."""
    calls: list[str] = []

    def down(url: str) -> None:
        calls.append(url)
        raise ConnectionError("no route\nand more lines")

    def download(*_: object) -> str:
        raise AssertionError("a download tries six times over half a minute")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", down)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return calls


def test_a_hub_that_does_not_answer_is_asked_once(asked: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        resolve_model("unknown/llama-3.1-8b-tuned", base=Path())
    assert len(asked) == 1
    assert error.value.message.startswith("model: 'unknown/llama-3.1-8b-tuned' is no directory, and the hub gives")
    assert error.value.message.endswith(" no config.json: ConnectionError: no route")
    assert "did you mean 'llama-3.1-8b'?" in error.value.hint


def test_a_twin_of_a_catalogue_model_is_read_as_it(asked: list[str]) -> None:
    model = resolve_model("meta-llama/Meta-Llama-3-8B-Instruct", base=Path())
    assert len(asked) == 1
    assert (model.name, model.config) == ("meta-llama/Meta-Llama-3-8B-Instruct", catalog_config("llama-3-8b"))
    assert "is read as the catalogue's llama-3-8b" in model.note
    assert model.note.endswith("could not be had (ConnectionError)")
    (warning,) = predict(Scenario.load(model.name), device="cpu").warnings
    assert warning == model.note


def test_another_size_is_no_twin_and_gets_the_nearest_hint(asked: list[str]) -> None:
    with pytest.raises(UsageError, match="the hub gives no config") as error:
        resolve_model("Qwen/Qwen2-7B-Instruct", base=Path())
    assert error.value.hint == "did you mean 'qwen2.5-7b'? give a directory with its config.json"


def test_a_gated_repository_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(url: str) -> None:
        raise huggingface_hub.errors.GatedRepoError(
            "401", response=httpx.Response(401, request=httpx.Request("GET", url))
        )

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", gated)
    with pytest.raises(UsageError) as error:
        resolve_model("meta-llama/Llama-9-9B", base=Path())
    assert "set HF_TOKEN to a token that may read it, or give a directory" in error.value.hint
    assert "set HF_TOKEN" in resolve_model("meta-llama/Llama-3.1-8B-Instruct", base=Path()).note


@pytest.mark.parametrize(
    "spec",
    [
        "https://huggingface.co/meta-llama/Llama-2-7b-hf",
        "https://huggingface.co/meta-llama/Llama-2-7b-hf/tree/main",
        "huggingface.co/meta-llama/Llama-2-7b-hf",
        "hf.co/meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-7b-hf@main",
    ],
)
def test_a_models_page_is_its_id(spec: str, asked: list[str]) -> None:
    assert resolve_model(spec, base=Path()).name == "llama-2-7b"
    assert Scenario.load(spec).model.name == "llama-2-7b"
    assert asked == []


def test_a_directory_of_such_a_name_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "mine@main").mkdir()
    (tmp_path / "mine@main" / "config.json").write_text(json.dumps(catalog_config("llama-2-7b")))
    assert resolve_model("mine@main", base=tmp_path).origin == "local"


def test_gguf_is_said_to_be_it(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / "q4.gguf"
    file.write_bytes(b"GGUF\x03\0\0\0")
    for spec in ("m", "m/q4.gguf"):
        with pytest.raises(UsageError) as error:
            resolve_model(spec, base=tmp_path)
        assert error.value.message.startswith(f"model: {file} is GGUF")
        assert "the model that it was made from" in error.value.hint
    (tmp_path / "m" / "config.json").write_text(json.dumps(catalog_config("llama-2-7b")))
    assert resolve_model("m", base=tmp_path).architecture.numel == 6_738_415_616


def test_json_that_is_no_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "lock.json"
    file.write_text('{"packages": {}, "lockfileVersion": 2}')
    with pytest.raises(UsageError) as error:
        resolve_model("lock.json", base=tmp_path)
    assert error.value.message.startswith(f"model: {file} is neither a model's config.json")


def test_without_the_hubs_library_the_catalogue_still_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(UsageError, match="huggingface_hub is not installed") as error:
        resolve_model("unknown/llama-3.1-8b-tuned", base=Path())
    assert error.value.hint.startswith("did you mean 'llama-3.1-8b'? pip install")


def test_of_a_model_that_sees_the_language_model_is_read(tmp_path: Path) -> None:
    text = {"model_type": "mistral", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral3", "text_config": text}))
    model = resolve_model(str(tmp_path), base=Path())
    assert (model.config["model_type"], model.architecture.hidden, model.path) == ("mistral", 64, "")
    assert model.note.startswith("of mistral3 only the language model is predicted, read as mistral")
    mllama = resolve_model({"model_type": "mllama", "text_config": {"model_type": "mllama_text_model"}}, base=Path())
    assert mllama.note.startswith("of mllama only the language model is predicted: its towers")


@pytest.mark.parametrize("path", ["./model", "models/config.json", "model/", "a/b/c", "/no/such", "~/model-x"])
def test_a_path_is_never_asked_of_the_hub(path: str, asked: list[str]) -> None:
    with pytest.raises(UsageError, match="no such file or directory"):
        resolve_model(path, base=Path())
    assert asked == []


def test_what_is_cached_needs_no_answer(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama"}')
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(config))
    model = resolve_model(REPO, base=Path())
    assert (model.name, model.origin, dict(model.config)) == (REPO, "hub", {"model_type": "llama"})


def test_what_the_hub_has_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama"}')
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(config))
    assert resolve_model(REPO, base=Path()).origin == "hub"


def test_a_whole_that_the_catalogue_has_the_text_part_of_is_told() -> None:
    found = resolve_model("google/gemma-3-4b-pt", base=Path())
    assert found.name == "gemma-3-4b-text"
    assert found.note.startswith("of google/gemma-3-4b-pt only the language model is predicted")
    assert not resolve_model("gemma-3-4b-text", base=Path()).note
    assert not resolve_model("google/gemma-3-1b-pt", base=Path()).note
