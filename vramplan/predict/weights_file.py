"""What `from_pretrained` reads: a checkpoint's tensors in the order of their names, the experts of a mixture apart."""

from vramplan.architecture import Weight
from vramplan.predict.expert_targets import LIKE_MIXTRAL, fused_projections
from vramplan.predict.weight_groups import Group, layer_groups
from vramplan.predict.writer import Piece, Writer
from vramplan.scenario import Scenario

#: transformers 5.17 conversion_mapping.py: how checkpoints of a family call what the model calls otherwise.
_RENAMED = {
    "gpt_neox": ("lm_head.", "embed_out."),
    **dict.fromkeys(LIKE_MIXTRAL, ("mlp.", "block_sparse_moe.")),
}


def load_groups(scenario: Scenario) -> list[Group]:
    """The model's weights in the order in which they arrive on the device.

    from_pretrained takes the checkpoint's tensors in the order of their names (core_model_loading.py sorts by
    `dot_natural_key`); a model that is moved whole, or built of random weights, comes in its own order. Buffers come
    last.
    """
    architecture = scenario.architecture
    outside = [*architecture.before, *architecture.after]
    layers = list(layer_groups(architecture))
    if not scenario.arrives_by_tensor:
        before, after = architecture.before, architecture.after
    else:

        def stored(weight: Weight) -> str:
            return stored_name(weight, architecture.family)

        outside.sort(key=stored)
        layers = [Group(tuple(sorted(group.weights, key=stored)), group.times) for group in layers]
        before = tuple(w for w in outside if stored(w) < architecture.layer_prefix)
        after = tuple(w for w in outside if stored(w) >= architecture.layer_prefix)
    return [Group(before, 1), *layers, Group(after, 1), Group(architecture.buffers, 1)]


def stored_name(weight: Weight, family: str) -> str:
    """What a checkpoint calls the weight, or the first of the matrices that it is made of."""
    if weight.stored:
        return weight.stored
    ours, theirs = _RENAMED.get(family, ("", ""))
    path = weight.path.replace(ours, theirs, 1)
    experts, _, _ = path.rpartition(".")
    first = min(fused_projections(family, weight), default="")
    return f"{experts}.0.{first}.weight" if first else path


def join_experts(writer: Writer, weight: Weight, stored: Piece, projections: tuple[str, ...]) -> int:
    """One parameter made of every expert's matrices, as transformers 5.17 core_model_loading.py makes it.

    All of them arrive, projection by projection; MergeModulelist stacks each projection's (its list goes after, last
    matrix first), Concatenate joins the stacks.
    """
    count = weight.shape[0]
    size = stored.bytes // len(projections)
    arrived = [
        [writer.temporary(f"{stored.label}: {name} of an expert", size // count) for _ in range(count)]
        for name in projections
    ]
    if len(projections) == 1:
        block = writer.hold(stored)
        writer.free(*reversed(arrived[0]))
        return block
    stacked = []
    for matrices, name in zip(arrived, projections, strict=True):
        stacked.append(writer.temporary(f"{stored.label}: {name} of every expert", size))
        writer.free(*reversed(matrices))
    block = writer.hold(stored)
    writer.free(*stacked)
    return block
