"""Plans and advice checked on random cases: `python benchmarks/plan_cases.py WHAT [CASES]`, WHAT being one of these.

`frontier`: at the answer `predict` must say that it fits, one token above that it does not, and 20 random lengths below
must fit. `advice`: every list of changes is tried with `predict` on a small model; none that fits may be shorter.
`room`: how much more room than its tensors take a run needs, which is what `vramplan.plan.limit.sure_room` relies on.
`fragmentation`: where a request fails that the bytes in no tensor would have met, how large a share of the reserved
they are, and whether expandable segments let the run go on; what `vramplan.oom.shortage.GOOD_SHARE` relies on.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

from msgspec.structs import replace

from vramplan.allocator import replay
from vramplan.catalog.gpus import gpu_names
from vramplan.catalog.models import catalog_names
from vramplan.plan.advice import advise
from vramplan.plan.frontier import SHORTEST, longest_sequence
from vramplan.plan.limit import Limit, Probe, allocated_peak
from vramplan.plan.shortest_list import applied
from vramplan.predict.changes import CHANGES
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast
from vramplan.predict.replayable import replayable
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

SEQS = (256, 512, 1000, 2048, 4096, 8192)


#: For the brute force: every list of changes of every case is predicted.
SMALL: dict[str, Any] = {
    "_name_or_path": "small",
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8000,
    "tie_word_embeddings": False,
}


def case(pick: random.Random, model: str | dict[str, Any] = "") -> Scenario:
    """A random recipe on a random card of the catalogue, and on a random model of it when none is given."""
    method = pick.choice(["qlora", "qlora", "qlora", "lora"])
    quant: dict[str, Any] = {"type": pick.choice(["nf4", "fp4", "int8"])} if method == "qlora" else {}
    if quant.get("type") in ("nf4", "fp4"):
        quant["double"] = pick.choice([True, False])
    return scenario_from_mapping(
        {
            "model": model or pick.choice(catalog_names()),
            "gpu": pick.choice(gpu_names()),
            "method": method,
            "quant": quant,
            "lora": {"rank": pick.choice([8, 16, 64])},
            "batch": pick.choice([1, 2, 4, 8]),
            "seq": pick.choice(SEQS),
            "optimizer": pick.choice(["adamw_torch", "paged_adamw_8bit", "sgd"]),
            "checkpointing": pick.choice([True, True, False]),
            "attention": pick.choice(["sdpa", "sdpa", "eager"]),
            "stack": pick.choice(["hf-trainer", "script"]),
        }
    )


def fits(scenario: Scenario, budget: int | None = None) -> bool:
    """What `predict` says."""
    verdict = predict_analytic(scenario, budget=budget).verdict
    assert verdict is not None
    return verdict.fits


class Finding(NamedTuple):
    """What a case shows."""

    words: str
    wrong: bool = False
    """Whether it contradicts what it was checked against."""


def check_frontier(pick: random.Random) -> Iterator[Finding]:
    """What is wrong with one answer; the word `none` when the model does not fit its card at all."""
    scenario = case(pick)
    found = longest_sequence(scenario, Probe(Limit()))
    if found is None:
        missed = fits(replace(scenario, seq=SHORTEST))
        yield Finding("MISSED: the shortest fits", wrong=True) if missed else Finding("none")
        return
    if not fits(found):
        yield Finding("WRONG: the answer does not fit", wrong=True)
    if fits(replace(found, seq=found.seq + 1)):
        yield Finding("WRONG: one more fits", wrong=True)
    below = pick.sample(range(SHORTEST, found.seq), min(20, found.seq - SHORTEST))
    for seq in below:
        if not fits(replace(found, seq=seq)):
            yield Finding(f"BELOW: {seq} of {found.seq} does not fit", wrong=True)


def shortest(scenario: Scenario, budget: int, *, keeping: bool) -> int | None:
    """Length of the shortest list of changes that fits, by trying every one."""
    useful = [c for c in CHANGES if c.variants(scenario) and (c.keeps_training or not keeping)]
    for length in range(1, len(useful) + 1):
        for chosen in combinations(useful, length):
            changed = applied(scenario, chosen)
            if changed is not None and fits(changed, budget):
                return length
    return None


def check_advice(pick: random.Random) -> Iterator[Finding]:
    """What is wrong with the advice for a small model and a budget below its need; how long the list is."""
    scenario = replace(case(pick, SMALL), gpu="", seq=pick.choice([192, 256, 512]))
    budget = int(held(scenario) * pick.uniform(0.3, 0.95))
    while fits(scenario, budget):
        budget = budget * 9 // 10
    found = advise(scenario, Probe(Limit(budget)))
    keeping = min((len(advice.steps) for advice in found if advice.keeps_training), default=None)
    if keeping != shortest(scenario, budget, keeping=True):
        yield Finding("WRONG: not the shortest list that keeps the training", wrong=True)
    if min((len(advice.steps) for advice in found), default=None) != shortest(scenario, budget, keeping=False):
        yield Finding("WRONG: not the shortest list", wrong=True)
    if not all(fits(advice.scenario, budget) for advice in found):
        yield Finding("WRONG: the advice does not fit", wrong=True)
    yield Finding(f"{len(found[0].steps)} changes" if found else "no list exists")


def held(scenario: Scenario) -> int:
    """Bytes that the allocator reserves when nothing stops it."""
    return replay(forecast(scenario, "cuda").program()).reserved


def check_room(pick: random.Random) -> Iterator[Finding]:
    """The share of room above its tensors in which a run fits."""
    run = forecast(case(pick), "cuda")
    allocated, program = allocated_peak(run.timeline), run.program()
    shares = (105, 110, 115, 120, 125, 133)
    enough = next((s for s in shares if replay(program, budget=allocated * s // 100).oom is None), None)
    yield Finding(f"fits in {enough} %") if enough else Finding("MORE than 133 %", wrong=True)


def check_fragmentation(pick: random.Random) -> Iterator[Finding]:
    """The share of what is in no tensor at such a failure, and what expandable segments do to the run."""
    scenario = case(pick)
    run = forecast(scenario, "cuda")
    room = pick.randint(allocated_peak(run.timeline) * 6 // 10, replay(run.program()).reserved)
    failed = replay(run.program(), budget=room).oom
    unused = failed.reserved - failed.allocated if failed else 0
    if failed is None or unused < failed.segment - (room - failed.reserved):
        return
    expandable = replayable(replace(scenario, expandable_segments=True), run.timeline)
    word = "goes on" if replay(expandable, budget=room).oom is None else "fails all the same"
    share = next(edge for edge in (2, 5, 10, 15, 20, 100) if unused * 100 <= failed.reserved * edge)
    yield Finding(f"up to {share:3} % in no tensor: {word}")


def main() -> int:
    """Run the cases and print what was found; 1 when any of it is wrong."""
    what, cases = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    check = {
        "frontier": check_frontier,
        "advice": check_advice,
        "room": check_room,
        "fragmentation": check_fragmentation,
    }[what]
    counted: Counter[Finding] = Counter()
    began = time.perf_counter()
    for seed in range(cases):
        for finding in check(random.Random(seed)):
            counted[finding] += 1
            if finding.wrong:
                print(f"case {seed}: {finding.words}", flush=True)
    for finding, count in sorted(counted.items()):
        print(f"{count:5} {finding.words}")
    print(f"{cases} cases in {time.perf_counter() - began:.0f} s")
    return int(any(finding.wrong for finding in counted))


if __name__ == "__main__":
    sys.exit(main())
