"""PyTorch's CUDA build on a machine without a card: everything runs but the kernels.

The build's own code decides what is allocated: operators, autograd, the choice of attention kernels, workspaces, the
caching allocator. What it needs of a card it asks of NVIDIA's libraries, and those are replaced here: the runtime hands
out addresses and counts bytes against a card's capacity, launches nothing and copies what is small; cuBLAS, cuDNN and
NVML say that all went well. So `vramplan measure --device cuda` runs whole, and its record holds the bytes that the
real allocator was asked for, on any card of the catalogue.

It is not a measurement. No kernel computes, so values are zeros and times mean nothing; what a driver or a library
takes outside torch's allocator (the context, cuBLAS's own memory), and what cuDNN's engines may ask for as workspace,
is not there. Records made so are never kept among the cards' own.
"""
