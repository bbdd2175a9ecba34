"""A folder that keeps what was computed of prompts for the next process. It knows bytes, digests and
tokens; no tensors, and no model.

    packed        a payload as named bytes               planes     lossless compression of them
    file_format   one payload, one file, checked whole   entry      what an index knows of it
    index         which payloads there are (SQLite)      facts      a model's identity that outlives a process
    folder        files and index as one                 sweep      what a killed process leaves is removed
    shelf         writing behind the engine's back       lock       one process at a time
"""

from milepost.disk.entry import Entry
from milepost.disk.facts import ModelFacts
from milepost.disk.folder import DiskFolder, NoRoomError
from milepost.disk.packed import Packed, PackedTensor
from milepost.disk.shelf import Codec, DiskShelf

__all__ = ["Codec", "DiskFolder", "DiskShelf", "Entry", "ModelFacts", "NoRoomError", "Packed", "PackedTensor"]
