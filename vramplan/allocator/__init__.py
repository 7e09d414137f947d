"""PyTorch's CUDA caching allocator, replayed: a timeline in, what the device must hold out."""

from vramplan.allocator.program import Program, prepare
from vramplan.allocator.replay import replay
from vramplan.allocator.result import Composition, Growth, OutOfMemory, PhaseMark, Replay
from vramplan.allocator.rules import Rules

__all__ = ["Composition", "Growth", "OutOfMemory", "PhaseMark", "Program", "Replay", "Rules", "prepare", "replay"]
