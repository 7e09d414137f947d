"""Values as YAML spells them, and as sentences have them."""

import pytest

from vramplan.spelling import in_yaml, shown


@pytest.mark.parametrize(
    ("value", "yaml", "words"),
    [
        (None, "null", "none"),
        ([], "[]", "none"),
        (True, "true", "true"),
        (1e-05, "1e-05", "1e-05"),
        ("two\n lines", "two lines", "two lines"),
        (["q_proj", "v_proj"], "[q_proj, v_proj]", "q_proj+v_proj"),
        ([True, None, [1, 2]], "[true, null, [1, 2]]", "true+null+[1, 2]"),
        ({"safe": False, "of": ()}, "{safe: false, of: []}", "{safe: false, of: []}"),
    ],
)
def test_a_value_in_yaml_and_in_words(value: object, yaml: str, words: str) -> None:
    assert (in_yaml(value), shown(value)) == (yaml, words)
