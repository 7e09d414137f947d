import pytest

from vramplan.importers.imported import spelled
from vramplan.importers.interpolation import interpolated
from vramplan.importers.torchtune_models import builder
from vramplan.importers.values import as_dtype, as_flag, as_names, as_number, is_null
from vramplan.scenario import DType


@pytest.mark.parametrize("value", [None, "null", "None", " ~ ", "", [], {}])
def test_nulls(value: object) -> None:
    assert is_null(value)


@pytest.mark.parametrize("value", [0, False, "false", "0", [None]])
def test_what_says_something_is_no_null(value: object) -> None:
    assert not is_null(value)


def test_flags() -> None:
    assert [as_flag(v) for v in (True, "True", "yes", 1, "1")] == [True] * 5
    assert [as_flag(v) for v in (False, "false", "no", 0, "0")] == [False] * 5
    assert [as_flag(v) for v in ("auto", 2, 0.5, None, [True])] == [None] * 5


def test_numbers() -> None:
    assert [as_number(v) for v in ("2e-4", 8, "8", 0.5)] == [2e-4, 8.0, 8.0, 0.5]
    assert [as_number(v) for v in (True, "nan", "inf", "1e400", "x", None, [1], 10**400)] == [None] * 8


def test_names_and_dtypes() -> None:
    assert as_names("q_proj, v_proj,q_proj") == ["q_proj", "v_proj"]
    assert as_names(["a", 1]) is None
    assert [as_dtype(v) for v in ("bf16", "torch.float16", "FP32", "int8")] == [
        DType.BFLOAT16, DType.FLOAT16, DType.FLOAT32, None
    ]  # fmt: skip


def test_references_are_resolved() -> None:
    content = {"dir": "/x", "logs": "${dir}/logs", "model": {"rank": "${rank}"}, "rank": 8, "list": ["${model.rank}"]}
    assert interpolated(content, "f") == {
        "dir": "/x", "logs": "/x/logs", "model": {"rank": 8}, "rank": 8, "list": [8]
    }  # fmt: skip


def test_builders() -> None:
    assert builder("torchtune.models.qwen2_5.qlora_qwen2_5_7b_instruct") == ("qwen2_5_7b", True, True)
    assert builder("torchtune.models.llama2.llama2_7b") == ("llama2_7b", False, False)
    assert builder("torchtune.models.llama3_2_vision.llama3_2_vision_11b") is None
    assert builder("os.system") is None


def test_values_are_spelled_as_in_yaml_and_short() -> None:
    assert spelled({"a": [True, None, "x"]}) == "{a: [true, null, x]}"
    assert len(spelled("x" * 500)) == 72
