"""A generation as timeline parts: the prompt through the model, then the last of the new tokens.

transformers 5.17 `generate`: DynamicCache, logits of the last token alone, no gradients.
"""

from vramplan.ledger import Phase
from vramplan.predict.causal_model import CausalModel
from vramplan.predict.layer_context import Cache
from vramplan.predict.tape import INT64, Tape, Tensor
from vramplan.predict.template import Template, stretched
from vramplan.scenario import Scenario


def generation(scenario: Scenario, t: Tape) -> Template:
    """PREFILL and DECODE. Of the decoding steps only the last is written out: no earlier one holds more."""
    t.training = False
    with t.no_grad():
        t.enter(Phase.PREFILL)
        model, cache = CausalModel(t, scenario), Cache()
        prompt = t.new((scenario.batch, scenario.seq), INT64, "input_ids")
        t.script.logits_width(scenario.architecture.vocab)
        token = _next(t, model, cache, scenario.seq)
        del prompt
        t.enter(Phase.DECODE)
        if scenario.new_tokens > 1:
            cache.length = stretched(scenario.seq, extra=scenario.new_tokens - 1)
            cache.before = stretched(scenario.seq, extra=scenario.new_tokens - 2)
            token = _next(t, model, cache, 1)
        del token
        cache.layers.clear()
    return t.template()


def _next(t: Tape, model: CausalModel, cache: Cache, tokens: int) -> Tensor:
    """The likeliest next token, from the logits of the last one."""
    hidden = model.hidden_states(tokens, cache)
    last = t.detach(hidden)
    last.shape = (hidden.shape[0], 1, hidden.shape[2])
    logits = model.logits(last)
    token = t.new((logits.shape[0], 1), INT64, "next token")
    del logits
    return token
