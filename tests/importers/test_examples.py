"""Every example file against the scenario that its library would run, keys and warnings."""

from pathlib import Path

import pytest
from importers.expected import EXPECTED, WARNED

from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.targets import resolve

EXAMPLES = Path(__file__).parent / "examples"


def test_every_example_is_expected() -> None:
    files = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml")}
    adapters = {str(path.parent.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("adapter_config.json")}
    assert files | adapters == set(EXPECTED) == set(WARNED)
    assert all(sum(name.startswith(f"{kind}/") for name in EXPECTED) >= 5 for kind in ("trl", "axolotl", "torchtune"))
    assert all(sum(name.startswith(f"{kind}/") for name in EXPECTED) >= 5 for kind in ("llamafactory", "peft"))


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_becomes_its_scenario(name: str) -> None:
    target = resolve(str(EXAMPLES / name))
    assert target.origin is not None
    assert target.origin.mapping == EXPECTED[name]
    scenario = target.single("test")
    assert scenario == scenario_from_mapping({"name": scenario.name, **EXPECTED[name]})


@pytest.mark.parametrize("name", WARNED)
def test_what_a_scenario_cannot_say_is_warned_about(name: str) -> None:
    origin = resolve(str(EXAMPLES / name)).origin
    assert origin is not None
    assert len(origin.warnings) == len(WARNED[name]), origin.warnings
    assert all(any(words in warning for warning in origin.warnings) for words in WARNED[name]), origin.warnings


@pytest.mark.parametrize("name", EXPECTED)
def test_every_key_of_the_file_is_in_the_table_once(name: str) -> None:
    """No key is lost: it is read, ignored, or warned about; and every key of the scenario says where it came from."""
    origin = resolve(str(EXAMPLES / name)).origin
    assert origin is not None
    rows = {row.ours for row in (*origin.read, *origin.assumed)}
    flat = {f"{key}.{part}" for key in ("quant", "lora", "stack") for part in origin.mapping.get(key, {})}
    assert rows == flat | (origin.mapping.keys() - {"quant", "lora", "stack"})
    ignored = [row.key for row in origin.ignored]
    assert len(ignored) == len(set(ignored))


def test_the_printed_scenario_reads_back() -> None:
    for name in EXPECTED:
        scenario = resolve(str(EXAMPLES / name)).single("test")
        assert scenario_from_mapping(scenario.to_mapping()) == scenario


def test_from_python_the_warnings_are_pythons() -> None:
    with pytest.warns(UserWarning, match="per_device: 2") as caught:
        scenario = Scenario.load(str(EXAMPLES / "trl/int8-fp16.yaml"), batch=3)
    assert scenario.batch == 3
    assert ["unknown key 'per_device: 2'" in str(warning.message) for warning in caught] == [True]
