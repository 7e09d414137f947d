import json
import os
from pathlib import Path
from typing import Any

import pytest

import vramplan
from vramplan.errors import UsageError
from vramplan.scenario import QuantType
from vramplan.scenario_file import scenario_from_mapping
from vramplan.targets import resolve, scenario_names

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_catalogue_model_gets_the_defaults(here: Path) -> None:
    target = resolve("llama-2-7b")
    scenario = target.single("test")
    assert not target.is_matrix
    assert (scenario.model.origin, scenario.model.name) == ("catalog", "llama-2-7b")
    assert (scenario.batch, scenario.seq, scenario.lora.rank, scenario.quant.type) == (1, 2048, 16, QuantType.NF4)


def test_a_hub_id_of_the_catalogue_needs_no_network(here: Path) -> None:
    assert resolve("meta-llama/Llama-2-7b-hf").scenarios[0].model.name == "llama-2-7b"


def test_a_directory_and_its_config_json_are_the_same_model(here: Path) -> None:
    (here / "model").mkdir()
    (here / "model" / "config.json").write_text(json.dumps(CONFIG))
    directory, file = (resolve(text).scenarios[0].model for text in ("model", "model/config.json"))
    assert directory == file
    assert (directory.name, directory.origin, directory.config) == ("model", "local", CONFIG)
    assert resolve(str(here / "model")).scenarios[0].model == directory


def test_a_scenario_file_and_its_name(here: Path) -> None:
    (here / "scenarios" / "tiny").mkdir(parents=True)
    (here / "scenarios" / "tiny" / "mine.yaml").write_text("model: llama-2-7b\nbatch: 3\n")
    (here / "scenarios" / "other.yml").write_text("model: llama-2-13b\nname: another\n")
    assert {"tiny/mine", "other"} <= scenario_names().keys()
    by_name, by_file = resolve("tiny/mine").scenarios[0], resolve("scenarios/tiny/mine.yaml").scenarios[0]
    assert by_name == by_file
    assert (by_name.name, by_name.batch) == ("mine", 3)
    assert resolve("other").scenarios[0].name == "another"


def test_a_model_beside_a_scenario_file_is_found_from_anywhere(here: Path) -> None:
    (here / "study").mkdir()
    (here / "study" / "config.json").write_text(json.dumps(CONFIG))
    (here / "study" / "run.yaml").write_text("model: config.json\n")
    assert resolve("study/run.yaml").scenarios[0].model.config == CONFIG


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("model: llama-2-7b\n", ["llama-2-7b-qlora"]),
        ("model: config.json\nname: mine\n", ["mine"]),
        ("model: llama-2-7b\nmatrix: {seq: [512, 1024]}\n", ["llama-2-7b-seq=512", "llama-2-7b-seq=1024"]),
        ("base_model: llama-2-7b\nadapter: lora\nlora_r: 8\nmicro_batch_size: 1\n", ["llama-2-7b-lora"]),
    ],
)
def test_a_scenario_comes_through_a_pipe_or_an_open_file(text: str, names: list[str], here: Path) -> None:
    (here / "config.json").write_text(json.dumps(CONFIG))
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    (here / "typed").write_text(text)
    with os.fdopen(read), (here / "typed").open() as file:
        for open_file in (read, file.fileno()):
            assert [scenario.name for scenario in resolve(f"/dev/fd/{open_file}").scenarios] == names


def test_a_device_that_holds_nothing_is_refused_as_an_empty_file_is() -> None:
    with pytest.raises(UsageError, match="/dev/null holds nothing, not a scenario"):
        resolve("/dev/null")


def test_overrides_win_over_the_file_and_its_matrix(here: Path) -> None:
    (here / "run.yaml").write_text("model: llama-2-7b\nbatch: 2\nmatrix: {seq: [512, 1024], lora.rank: [8, 16]}\n")
    assert [(s.seq, s.lora.rank) for s in resolve("run.yaml").scenarios] == [
        (512, 8), (512, 16), (1024, 8), (1024, 16)
    ]  # fmt: skip
    fixed = resolve("run.yaml", {"seq": 256, "batch": 5})
    assert fixed.is_matrix
    assert [(s.batch, s.seq, s.lora.rank) for s in fixed.scenarios] == [(5, 256, 8), (5, 256, 16)]


def test_a_part_of_the_stack_is_set_in_the_stack_that_was_asked_for(here: Path) -> None:
    stack = resolve("llama-2-7b", {"stack.upcast": "none", "stack": "script"}).scenarios[0].stack
    assert (stack.base, stack.upcast, stack.outputs) == ("script", "none", "held")


def test_a_typed_part_of_a_section_is_set_in_every_value_of_its_axis(here: Path) -> None:
    (here / "run.yaml").write_text("model: llama-2-7b\nmatrix: {stack: [script, trl], lora: [{rank: 8}, {rank: 16}]}\n")
    found = resolve("run.yaml", {"stack.upcast": "none", "lora.rank": 4}).scenarios
    assert [(s.stack.base, s.stack.upcast, s.lora.rank) for s in found] == [("script", "none", 4), ("trl", "none", 4)]
    assert [s.name for s in found] == ["run-base=script-upcast=none-rank=4", "run-base=trl-upcast=none-rank=4"]
    whole = {"stack": "script", "lora": {"rank": 4}}
    assert [s.name for s in resolve("run.yaml", whole).scenarios] == ["run"]
    (here / "parts.yaml").write_text("model: llama-2-7b\nmatrix: {stack.base: [trl], stack.upcast: [all, none]}\n")
    found = resolve("parts.yaml", {"stack": "script"}).scenarios
    assert [(s.stack.base, s.stack.upcast) for s in found] == [("script", "all"), ("script", "none")]
    assert [s.name for s in resolve("parts.yaml", {"stack": {"base": "trl", "upcast": "all"}}).scenarios] == ["parts"]


def test_one_scenario_is_asked_of_a_matrix(here: Path) -> None:
    (here / "run.yaml").write_text("model: llama-2-7b\nmatrix: {seq: [512, 1024], batch: [2]}\n")
    with pytest.raises(UsageError, match="compare needs one scenario, and this target has a matrix of 2") as caught:
        resolve("run.yaml").single("compare")
    assert caught.value.hint == "fix the matrix's keys with flags, or give one scenario"
    assert resolve("run.yaml", {"seq": 512}).single("compare").batch == 2
    with pytest.raises(UsageError) as caught:
        vramplan.Scenario.load("run.yaml")
    assert caught.value.hint == "give a value for each key of its matrix, such as seq=512, batch=2"


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("llma-2-7b", "unknown target 'llma-2-7b'", "did you mean 'llama-2-7b'?"),
        ("", "the target is empty", "model"),
        ("missing.yaml", "no such file: missing.yaml", "list scenarios"),
        ("records/", "no such directory: records/", "one that exists"),
        ("x" * 5000, "unknown target", "list models"),
        ("a\0b", "unknown target", "list models"),
    ],
    ids=["typo", "empty", "missing-file", "missing-directory", "too-long", "nul"],
)
def test_unknown_targets_are_refused_with_a_hint(here: Path, target: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(target)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_scenario_load_takes_keywords(here: Path) -> None:
    scenario = vramplan.Scenario.load("llama-2-7b", batch=4, quant={"double": False}, lora={"rank": 8}, load="random")
    assert (scenario.batch, scenario.quant.double, scenario.quant.type) == (4, False, QuantType.NF4)
    assert (scenario.lora.rank, scenario.lora.targets) == (8, ("all-linear",))
    assert scenario.to_mapping()["load"] == "random"


@pytest.mark.parametrize("target", [{"model": "llama-2-7b"}, None, ["llama-2-7b"]])
def test_scenario_load_refuses_what_names_nothing(target: Any) -> None:
    with pytest.raises(UsageError) as caught:
        vramplan.Scenario.load(target)
    assert caught.value.message == f"{target!r} is no target"
    assert 'Scenario.load("llama-2-7b", batch=4)' in caught.value.hint


@pytest.mark.parametrize(
    ("directory", "extra"),
    [
        ("model", {"tokens_seen": 10**30}),
        ("model", {"_name_or_path": "/"}),
        ("mod\udcffel", {}),
        ("🦙", {"x": "\ud83d"}),
    ],
)
def test_whatever_a_configuration_holds_besides_it_is_predicted(
    directory: str, extra: dict[str, object], here: Path
) -> None:
    (here / directory).mkdir()
    (here / directory / "config.json").write_text(json.dumps(CONFIG | extra))
    scenario = vramplan.Scenario.load(directory, seq=64)
    again = scenario_from_mapping(scenario.to_mapping())
    assert vramplan.predict(again).ledger == vramplan.predict(scenario).ledger
    assert again.model.name == scenario.model.name


def test_a_model_called_by_no_name_is_called_by_its_family(here: Path) -> None:
    (here / "run.yaml").write_text(json.dumps({"model": CONFIG | {"_name_or_path": "/"}}))
    assert resolve("run.yaml").scenarios[0].model.name == "llama"


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_prediction_prints_is_a_target(whole: bool, here: Path) -> None:
    (here / "m").mkdir()
    (here / "m" / "config.json").write_text(json.dumps(CONFIG))
    body = vramplan.predict(vramplan.Scenario.load("m", seq=64)).to_json()
    (here / "printed.json").write_text(json.dumps(body if whole else body["scenario"]))
    again = vramplan.predict(vramplan.Scenario.load("printed.json"))
    assert again.to_json() == body
    assert resolve("printed.json", {"seq": 128}).scenarios[0].seq == 128
