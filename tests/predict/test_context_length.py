"""Samples longer than a model's positions are answered, and said."""

from vramplan.predict.context_length import context_length, context_warning
from vramplan.scenario import Scenario


def test_a_context_is_what_the_configuration_names() -> None:
    assert context_length(Scenario.load("llama-2-7b")) == 4096
    assert context_length(Scenario.load("gpt2")) == 1024  # n_positions


def test_samples_within_the_context_need_no_words() -> None:
    assert context_warning(Scenario.load("llama-2-7b", seq=4096)) == ""
    assert context_warning(Scenario.load("llama-2-7b", method="merge", quant={"type": "none"}, seq=9000)) == ""


def test_a_rotary_model_runs_beyond_its_context() -> None:
    words = context_warning(Scenario.load("llama-2-7b", seq=4097))
    assert words == "4,097 tokens are more than the model's context of 4,096 (max_position_embeddings)"


def test_a_table_of_positions_ends() -> None:
    assert "index error" in context_warning(Scenario.load("gpt2", seq=1025))


def test_generated_tokens_count() -> None:
    prompt = Scenario.load("llama-2-7b", method="inference", seq=4000, new_tokens=97)
    assert context_warning(prompt).startswith("4,097 tokens")
