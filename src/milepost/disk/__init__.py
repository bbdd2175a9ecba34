"""A folder that keeps what was computed of prompts for the next process. It knows bytes, digests and
tokens; no tensors, and no model.

    packed        a payload as named bytes               planes     lossless compression of them
    file_format   one payload, one file, checked whole   entry      what an index knows of it
"""

from milepost.disk.entry import Entry
from milepost.disk.packed import Packed, PackedTensor

__all__ = ["Entry", "Packed", "PackedTensor"]
