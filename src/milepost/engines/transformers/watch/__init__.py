"""Is the model still the one that made these states? See ``model_watch``."""

from milepost.engines.transformers.watch.inventory import Inventory
from milepost.engines.transformers.watch.model_watch import ModelIdentity, ModelWatch

__all__ = ["Inventory", "ModelIdentity", "ModelWatch"]
