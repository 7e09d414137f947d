"""transformers' own code on the meta device, each call of torch told to an observer that keeps account of memory.

Shapes, strides (what is a view and what a copy) and element types are torch's own answer. The protocol, `observer`, is
the only module here that does not import torch.
"""
