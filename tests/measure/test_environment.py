"""Which versions stand in a record."""

from importlib.metadata import version
from typing import Any

import pytest

from vramplan.measure.environment import LIBRARIES, library_versions
from vramplan.scenario_file import scenario_from_mapping


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        ({}, ()),
        ({"stack": "trl"}, ("trl",)),
        ({"stack": {"base": "trl-dpo", "kernels": "mlp"}}, ("trl", "liger-kernel")),
        ({"stack": {"loss": "tiled", "kernels": "liger"}}, ("trl", "liger-kernel")),
        ({"stack": "trl", "method": "inference"}, ()),
    ],
)
def test_a_stack_names_what_it_is_built_on(keys: dict[str, Any], more: tuple[str, ...]) -> None:
    scenario = scenario_from_mapping({"model": {"model_type": "llama"}, **keys})
    assert library_versions(scenario) == {name: version(name) for name in (*LIBRARIES, *more)}
