import json
from pathlib import Path
from typing import Any

import pytest

from vramplan.errors import UsageError
from vramplan.yaml_file import parse_yaml, read_yaml, yaml_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-05),  # what Python's json writes; PyYAML alone takes it for text
        ("5E-2", 0.05),
        ("-1.5e3", -1500.0),
        ("1e", "1e"),
        ("0512", "0512"),  # 330 in octal
        ("1:30", "1:30"),  # 90 in base 60
        ("0x10", 16),
        ("1_000", 1000),
        ("0", 0),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_numbers_are_those_that_were_meant(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}") == {"key": value}
    assert parse_yaml(yaml_text({"key": value, "text": text})) == {"key": value, "text": text}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii", [True, False])
def test_json_is_read_as_json(indent: Any, ascii: bool, tmp_path: Path) -> None:
    content = {"model": {"rms_norm_eps": 1e-06, "_name_or_path": "🦙-模型", "x": [None, True]}, "batch": 2}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    assert read_yaml(file) == content


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"batch": 1, "batch": 2}', "line 1, column 14: key 'batch' is written twice"),
        ('{"name": "\\ud83d"}', "line 1, column 10: half of a surrogate pair"),
        ('name: "\\ud83d"', "line 1, column 7: half of a surrogate pair"),
        ("model: {d: !!set {a, b}}", "could not determine a constructor for the tag 'tag:yaml.org,2002:set'"),
        ("model: {d: !!binary aGk=}", "could not determine a constructor for the tag 'tag:yaml.org,2002:binary'"),
    ],
)
def test_what_json_could_not_hold_is_refused_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_yaml(file)
    assert reason in caught.value.message
