"""The gated MLP: the activation of one projection times another, projected back."""

from vramplan.predict.liger_layers import liger_gated
from vramplan.predict.modules import Modules
from vramplan.predict.operations import mul
from vramplan.predict.operations_mlp import activation
from vramplan.predict.tape import Tape, Tensor
from vramplan.stacks import LayerKernel


def gated_mlp(t: Tape, m: Modules, path: str, name: str, x: Tensor) -> Tensor:
    """`down_proj(act_fn(gate_proj(x)) * up_proj(x))` of the module at `path`, whose activation is called `name`."""
    gate, up, down = (m[f"{path}.{projection}"] for projection in ("gate_proj", "up_proj", "down_proj"))
    if LayerKernel.MLP in m.liger.kernels:
        return down(t, liger_gated(t, gate(t, x), up(t, x), apart=False))
    return down(t, mul(t, activation(t, name, gate(t, x)), up(t, x), "act * up"))
