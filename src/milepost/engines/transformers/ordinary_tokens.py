"""Random prompts for probing a model."""

import torch

from milepost.engines.transformers.driver import TransformersDriver

__all__ = ["ordinary_tokens"]


def ordinary_tokens(driver: TransformersDriver, num_tokens: int, seed: int) -> torch.Tensor:
    """Draw ordinary tokens, ``int64[num_tokens]``: a special one may reset a state or stand for an image."""
    special: set[int] = set()
    for config in (driver.model.config, driver.model.config.get_text_config(decoder=True)):
        for name, value in vars(config).items():
            if name.endswith(("token_id", "token_ids", "token_index")):
                special.update(
                    value if isinstance(value, list | tuple) else [value] if value is not None else []
                )
    ordinary = [token for token in range(driver.vocabulary_size) if token not in special]
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(ordinary)[torch.randint(len(ordinary), (num_tokens,), generator=generator)]
