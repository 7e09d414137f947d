"""How many tokens a model's positions reach, and what to say of samples that are longer."""

from vramplan.scenario import Method, Scenario

_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def context_length(scenario: Scenario) -> int | None:
    """Tokens that the model's positions were trained for; None when its configuration does not say."""
    return next((size for key in _KEYS if isinstance(size := scenario.model.config.get(key), int)), None)


def context_warning(scenario: Scenario) -> str:
    """What happens to samples longer than the model's context; empty where none is."""
    context = context_length(scenario)
    if context is None or scenario.method is Method.MERGE:
        return ""
    tokens = scenario.seq + (scenario.new_tokens if scenario.method is Method.INFERENCE else 0)
    if tokens <= context:
        return ""
    if scenario.architecture.facts.learned_positions:
        return f"{tokens:,} tokens: the model's table ends at {context:,} positions, so a run stops with an index error"
    return f"{tokens:,} tokens are more than the model's context of {context:,} (max_position_embeddings)"
