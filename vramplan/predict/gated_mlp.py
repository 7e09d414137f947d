"""The gated MLP: the activation of one projection times another, projected back."""

from vramplan.architecture import Mlp
from vramplan.predict.activations import activation
from vramplan.predict.liger_layers import liger_gated
from vramplan.predict.modules import Modules
from vramplan.predict.operations import mul, split
from vramplan.predict.tape import Tape, Tensor
from vramplan.stacks import LayerKernel


def gated_mlp(t: Tape, m: Modules, path: str, activation_name: str, x: Tensor) -> Tensor:
    """`down_proj(act_fn(gate_proj(x)) * up_proj(x))` of the module at `path`."""
    gate, up, down = (m[f"{path}.{projection}"] for projection in ("gate_proj", "up_proj", "down_proj"))
    if LayerKernel.MLP in m.liger.kernels:
        return down(t, liger_gated(t, gate(t, x), up(t, x), contiguous=True))
    return down(t, mul(t, activation(t, activation_name, gate(t, x)), up(t, x), "act * up"))


def fused_gated_mlp(t: Tape, m: Modules, mlp: Mlp, x: Tensor) -> Tensor:
    """The same where one projection makes both halves (Phi-3)."""
    up = m["mlp.gate_up_proj"](t, x)
    gate, up = split(t, up, [mlp.intermediate, mlp.intermediate])
    if LayerKernel.MLP in m.liger.kernels:
        return m["mlp.down_proj"](t, liger_gated(t, gate, up, contiguous=False))
    up = mul(t, up, activation(t, mlp.activation, gate), "up * act")
    return m["mlp.down_proj"](t, up)
