"""EleutherAI's lm-evaluation-harness with Milepost as its model: same numbers, what is shared computed once.

    python -m milepost.lm_eval --model milepost --model_args pretrained=MODEL,capacity=4GiB --tasks ...

The command line is the harness's own. In a program, call :func:`register` and name ``milepost`` as the model,
or give ``lm_eval.simple_evaluate`` a :class:`MilepostLM`.
"""

from milepost.extras import require_extra

require_extra("lm-eval", "lm_eval", "torch", "transformers", purpose="milepost.lm_eval")

# Only with what they need at hand.
from milepost.lm_eval.model import MilepostLM  # noqa: E402
from milepost.lm_eval.registration import register  # noqa: E402
from milepost.lm_eval.savings import Savings  # noqa: E402

__all__ = ["MilepostLM", "Savings", "register"]
