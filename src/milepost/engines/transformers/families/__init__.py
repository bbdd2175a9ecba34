"""What each family needs to continue exactly from a restored state: one table, one file a kind of problem.

A family that is not in the table gets the generic driver. Whether that is enough is not assumed but measured
when a model is opened (``probe``).

==================================  ====================================================================
family                              what is wrong or different upstream
==================================  ====================================================================
mamba, falcon_mamba, jamba, zamba   the scan of several tokens starts from zeros (``selective_scan``)
recurrent_gemma                     state lives on the modules, and several tokens drop the convolution's
                                    context (``recurrent_gemma``)
minimax                             past length is read from a layer that keeps none, and several tokens
                                    take a path without blocks (``minimax``)
bamba                               positions start at zero unless passed; the driver always passes them
xlstm, rwkv                         a cache of their own kind, which the model makes on its first call
rwkv                                a token of several sequences at once mixes them (``rwkv``)
inkling, inkling2, inkling2_loop    attention counts distances in columns of the cache, alike for all rows of
                                    a call, so each sequence is advanced by itself
phi3, phi4_multimodal, phimoe       an answer that outgrows the original context starts over (``positions``)
==================================  ====================================================================

Measured on transformers 5.15 to 5.24. The Mamba-1 families need a later version than 5.15, recurrent_gemma
needs 5.18; below that the probe refuses them, as it does whatever a later version breaks.

Fixes are bound to the submodules of the one instance that is opened. Classes and modules of transformers
stay untouched, and ``Driver.release`` takes the fixes off again.
"""

from transformers import PreTrainedModel

from milepost.engines.transformers.adaptation import Adaptation
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import minimax, recurrent_gemma, rwkv, selective_scan

__all__ = ["driver_for"]

_SELECTIVE_SCAN = Adaptation(patches=selective_scan.patches)

_STARTS_OVER = Adaptation(starts_over=True)

_COUNTS_COLUMNS = Adaptation(
    reason_against_rows="its attention counts distances in columns of the cache, alike for all rows"
)

_ADAPTATIONS: dict[str, Adaptation] = {
    "mamba": _SELECTIVE_SCAN,
    "falcon_mamba": _SELECTIVE_SCAN,
    "jamba": _SELECTIVE_SCAN,
    "zamba": _SELECTIVE_SCAN,
    "recurrent_gemma": Adaptation(new_cache=recurrent_gemma.new_cache, patches=recurrent_gemma.patches),
    "minimax": Adaptation(new_cache=minimax.new_cache, patches=minimax.patches),
    "xlstm": Adaptation(
        new_cache=lambda model: None, reason_against_loops="generate asks its cache what it does not have"
    ),
    "rwkv": Adaptation(new_cache=lambda model: None, patches=rwkv.patches, has_context_limit=False),
    **dict.fromkeys(
        (
            *("inkling", "inkling_text", "inkling2", "inkling2_text"),
            *("inkling2_loop", "inkling2_loop_text"),
        ),
        _COUNTS_COLUMNS,
    ),
    "phi3": _STARTS_OVER,
    "phi4_multimodal": _STARTS_OVER,
    "phimoe": _STARTS_OVER,
}


def driver_for(model: PreTrainedModel) -> TransformersDriver:
    """Return the driver of ``model``, its family's fix applied to this instance alone.

    Raises:
        UnsupportedModelError: The model is no decoder-only language model with a cache.
        ConfigurationError: The model is in training mode.
    """
    return TransformersDriver(model, adaptation=_ADAPTATIONS.get(model.config.model_type))
