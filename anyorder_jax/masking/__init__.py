"""What is hidden of one example and what is asked of it: orders, granularity, rates, and the sampler.

Within this room S counts the slots of one granularity, and every array over slots or units has one entry more
than there are slots or units: the last stands for the frame, so that the slot -1 of a frame token finds it.
It is never hidden.
"""
