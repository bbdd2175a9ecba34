"""One thread: tiny matrices gain nothing from more, and several test processes would fight over the cores."""

import torch

torch.set_num_threads(1)
