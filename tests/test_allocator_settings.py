"""What a process's variables say of PyTorch's allocator."""

import pytest

from vramplan.allocator_settings import expandable_segments, with_expandable_segments


@pytest.mark.parametrize(
    ("variables", "expandable"),
    [
        ({}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, True),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:128, expandable_segments:True"}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}, False),
    ],
)
def test_either_variable_says_it(variables: dict[str, str], expandable: bool) -> None:
    assert expandable_segments(variables) is expandable


def test_other_settings_stay() -> None:
    asked = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False,garbage_collection_threshold:0.8"}
    assert with_expandable_segments(asked) == {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_CUDA_ALLOC_CONF": "garbage_collection_threshold:0.8,expandable_segments:True",
    }
    assert expandable_segments(with_expandable_segments(asked))
