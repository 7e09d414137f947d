"""The changes of sizes: shorter samples, fewer and smaller adapters, smaller batches of the training and of evaluation.

Each returns the changed scenarios, the mildest first, none where it does not apply; `vramplan.predict.changes` names
their prices.
"""

from msgspec.structs import replace

from vramplan.predict.adapters import adapted
from vramplan.predict.expert_targets import resolve_targets
from vramplan.scenario import Scenario

#: Sequences are shortened to multiples of this many tokens: tensor cores and fused kernels prefer them.
SEQ_STEP = 64
#: No shorter sequence is proposed: a few sentences, below which a fine-tuning sample says little.
SHORTEST_SEQ = 128
#: No lower rank is proposed: LoRA's paper (arXiv:2106.09685, table 6) finds 4 to 8 enough on its tasks.
LOWEST_RANK = 4

#: A scenario changed in one way: what to try, the mildest first.
Variants = tuple[Scenario, ...]


def micro_batch(scenario: Scenario) -> Variants:
    """Every smaller micro-batch that keeps the samples per step."""
    if not scenario.method.trains:
        return ()
    samples = scenario.batch * scenario.grad_accum
    smaller = (n for n in range(scenario.batch - 1, 0, -1) if samples % n == 0)
    return tuple(replace(scenario, batch=n, grad_accum=samples // n) for n in smaller)


def eval_accumulate(scenario: Scenario) -> Variants:
    """Evaluation's logits on the host after every step.

    transformers 5.17 trainer.py `evaluation_loop`: every `eval_accumulation_steps` they go there, and until then each
    step's are put behind those before, which takes both once more (trainer_pt_utils.py `torch_pad_and_concatenate`).
    """
    settings = scenario.evaluation
    if settings is None or settings.accumulate <= 1:
        return ()
    return (replace(scenario, evaluation=replace(settings, accumulate=1)),)


def eval_batch(scenario: Scenario) -> Variants:
    """Halves of evaluation's batch, down to single samples."""
    settings = scenario.evaluation
    if settings is None:
        return ()
    halves = (settings.batch >> n for n in range(1, settings.batch.bit_length()))
    return tuple(replace(scenario, evaluation=replace(settings, batch=n)) for n in halves)


def sequence(scenario: Scenario) -> Variants:
    """Every multiple of 64 tokens below the present length."""
    longest = (scenario.seq - 1) // SEQ_STEP * SEQ_STEP
    return tuple(replace(scenario, seq=seq) for seq in range(longest, SHORTEST_SEQ - 1, -SEQ_STEP))


def plain_lora(scenario: Scenario) -> Variants:
    """LoRA without magnitudes."""
    if not (scenario.method.trains and scenario.method.adapts and scenario.lora.dora):
        return ()
    return (replace(scenario, lora=replace(scenario.lora, dora=False)),)


def saved_modules(scenario: Scenario) -> Variants:
    """Adapters alone, no module trained whole."""
    if not (scenario.method.trains and scenario.method.adapts and scenario.lora.modules_to_save):
        return ()
    return (replace(scenario, lora=replace(scenario.lora, modules_to_save=(), modules_dtype=None)),)


def targets(scenario: Scenario) -> Variants:
    """Adapters on attention alone.

    Its modules are recognised by structure: attention comes first in a layer, so they are in the same module
    (`self_attn`) as the layer's first linear module.
    """
    if not (scenario.method.trains and scenario.method.adapts):
        return ()
    weights = [w for block in scenario.architecture.blocks for w in block.weights]
    linears = [w for w in weights if w.adaptable]
    found = resolve_targets(scenario.architecture, scenario.lora)
    chosen = [w for w in linears if adapted(w, found)]
    if not chosen:
        return ()
    attention = _outermost(linears[0].path)
    names = dict.fromkeys(w.module for w in chosen if _outermost(w.path) == attention)
    others = found.parameters or len(names) < len(dict.fromkeys(w.module for w in chosen))
    if not names or not others:
        return ()
    return (replace(scenario, lora=replace(scenario.lora, targets=tuple(names))),)


def _outermost(path: str) -> str:
    """The layer's module that holds it: `self_attn` of `self_attn.q_proj.weight`."""
    return path.partition(".")[0]


def rank(scenario: Scenario) -> Variants:
    """The powers of two below the present rank."""
    if not (scenario.method.trains and scenario.method.adapts):
        return ()
    lower = (2**n for n in range(16, 1, -1) if LOWEST_RANK <= 2**n < scenario.lora.rank)
    return tuple(replace(scenario, lora=replace(scenario.lora, rank=n)) for n in lower)
