"""What is computed differently on a CPU, a GPU and a TPU; each file says which form is for which, and why.

    attention.py   softmax attention: dense for XLA, cuDNN and Tokamax on a GPU, splash on a TPU
    grouped.py     rows times the matrices of their experts; mosaic.py holds the kernels for Hopper
    counting.py    the largest of a row, and what comes first: forms that a CPU does fast

`attention.attend` and `moe.routed` choose by `sharding.platform`; nobody else names a platform.
"""
