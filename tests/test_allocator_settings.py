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
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False,expandable_segments:True"}, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True,expandable_segments:False"}, False),
    ],
)
def test_the_first_variable_that_is_set_says_it_its_last_word_counts(
    variables: dict[str, str], expandable: bool
) -> None:
    assert expandable_segments(variables) is expandable


def test_other_settings_stay() -> None:
    asked = "expandable_segments:False,garbage_collection_threshold:0.8"
    made = "garbage_collection_threshold:0.8,expandable_segments:True"
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        assert with_expandable_segments({name: asked}) == {name: made}
    assert with_expandable_segments({}) == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
