"""States from inside one forward call: the whole call is made once, the recurrence alone in pieces.

A state at a planned position is usually had by ending a call there. On a device that lives on long calls
each such end is dear, though only the recurrence has a state: projections, attention and feed-forward
layers take all tokens at once whatever is captured. So

* the recurrence of each layer (``recurrences``) is called piece by piece, each from the state after the one
  before, and what is after each piece is noted (``recording``);
* a convolution's state is the last columns of its inputs, and a sliding window's the last of its keys and
  values: both are in the sequence, and are copied out of it;
* KV grows with every token, so a prefix of it is the prefix's own.

The kernels are those that the model has, torch's or others: they are given fewer tokens at a time, and keep
their states as precisely as at the end of a call. What they hand out on the way may be less precise (bf16
from flash-linear-attention and mamba-ssm), and is not used.

Whether a model comes out the same this way is measured when it is opened (``choice``).
"""
