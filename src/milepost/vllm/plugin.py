"""An entry point of ``vllm.general_plugins``, for those who cannot change the command line. vLLM runs it in
all of its processes; it does nothing unless ``MILEPOST_VLLM=1`` is set.
"""

import os
from typing import Any

__all__ = ["SWITCH", "register"]

SWITCH = "MILEPOST_VLLM"


def register() -> None:
    """Make ``milepost.vllm.Scheduler`` the default scheduler; one that is named keeps its place."""
    if os.environ.get(SWITCH) != "1":
        return
    from vllm.config import SchedulerConfig

    stock = SchedulerConfig.get_scheduler_cls
    if getattr(stock, "is_milepost", False):
        return

    def get_scheduler_cls(config: SchedulerConfig) -> Any:
        if config.scheduler_cls is not None:
            return stock(config)
        from milepost.vllm.scheduler import Scheduler

        return Scheduler

    get_scheduler_cls.is_milepost = True  # type: ignore[attr-defined]
    SchedulerConfig.get_scheduler_cls = get_scheduler_cls
