"""The estimators that are compared: what to install, what their numbers mean, and what they cannot be told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tool:
    """One estimator from the package index that runs offline."""

    name: str
    requirement: str
    """What pip installs, pinned."""
    adapter: str
    """File in `adapters/` that runs in the tool's own environment."""
    heavy: bool
    """Whether it needs PyTorch or transformers, which it then borrows from this project's environment."""
    number: str
    """What its total is, and how it is read."""
    untold: str
    """What decides memory in these rows and cannot be expressed."""


TOOLS = (
    Tool(
        name="fitcheck-llm",
        requirement="fitcheck-llm==0.3.1",
        adapter="ask_fitcheck.py",
        heavy=False,
        number="total is the process's memory; reserved is the total less the context of its profile, "
        "allocated the total less its overhead. The overheads of its T4 profiles are fitted to the archive "
        "that the T4 rows come from",
        untold="upcast, autocast, whether outputs are held, reentrant checkpointing, paged optimizers, the RTX 4080",
    ),
    Tool(
        name="canifinetune",
        requirement="canifinetune==0.4.1",
        adapter="ask_canifinetune.py",
        heavy=False,
        number="its target is peak reserved; allocated is that less its CUDA overhead; the safety margin is left "
        "out of both. Its formulas were developed on the RTX 4080 rows' series",
        untold="upcast, autocast, whether outputs are held, reentrant checkpointing, the attention kernel in full",
    ),
    Tool(
        name="ftuneai",
        requirement="ftuneai==0.4.1",
        adapter="ask_ftuneai.py",
        heavy=False,
        number="a total with 20 % for CUDA; allocated is the total without it",
        untold="double quantisation, the vocabulary's logits, upcast, autocast, held outputs, adapters' dtype",
    ),
    Tool(
        name="peft-doctor",
        requirement="peft-doctor==0.9.2",
        adapter="ask_peft_doctor.py",
        heavy=False,
        number="a total with an overhead for fragmentation; allocated is the total without it",
        untold="rank, targets, optimizer, attention kernel, vocabulary, double quantisation, dtypes, the stack",
    ),
    Tool(
        name="qmemcalc",
        requirement="qmemcalc==0.1.1",
        adapter="ask_qmemcalc.py",
        heavy=True,
        number="a total with 10 % for buffers; allocated is the total without it",
        untold="the parameter count (it derives its own), targets, attention kernel, vocabulary, the stack",
    ),
    Tool(
        name="torch-kitsune",
        requirement="torch-kitsune==0.7.0",
        adapter="ask_kitsune.py",
        heavy=True,
        number="a total with 15 % overhead; allocated is the total without it",
        untold="checkpointing, attention kernel, the base's dtype, double quantisation, the head, the stack",
    ),
    Tool(
        name="accelerate estimate-memory",
        requirement="accelerate==1.15.0",
        adapter="ask_accelerate.py",
        heavy=True,
        number="the size of the base model's weights in int4 or float16; one number, taken for both",
        untold="adapters, optimizer, batch, sequence, everything but the model and its dtype",
    ),
)
