"""Before a request is let through: which model is this now, can it still be resumed, and may it be stored?

What changes the course of a forward call (layers, the functions that they run, types, the configuration,
autocast) changes what the probe once found, so the probe runs again: once for each such shape of the model.
Other weights, another adapter or another precision in the same shape do not need it.
"""

import logging

import torch

from milepost.engines.cuts import Capture
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.failing_call import failing_call
from milepost.engines.transformers.inside.choice import choose_capture
from milepost.engines.transformers.probe import ProbeReport, probe_resume
from milepost.engines.transformers.watch import Inventory, ModelIdentity, ModelWatch
from milepost.errors import MilepostError, ModelChangedError, UnsupportedModelError

__all__ = ["Admission"]

_log = logging.getLogger(__name__)


class Admission:
    """Looks at one model for all engines that serve it.

    Attributes:
        probe: What the probe found when the model was opened.

    Raises:
        UnsupportedModelError: The model cannot be resumed exactly.
    """

    def __init__(self, driver: TransformersDriver) -> None:
        self._driver = driver
        try:
            self._watch = ModelWatch(driver.model, settle=self._run_shortly)
        except (MilepostError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UnsupportedModelError(f"{driver.family}: {failing_call(driver, error)}") from error
        self.probe: ProbeReport = self._watch.learn_restless(lambda: probe_resume(driver))
        self._opened = self._watch.look()
        self._can_store = {self._opened.shape: True}
        self._is_trusted = False
        self._capture: Capture | None = None

    @property
    def inventory(self) -> Inventory:
        """All that the model computes by, as it was last looked at."""
        return self._watch.inventory

    def choose_capture(self) -> Capture:
        """Measure how states are taken on the way (see ``inside``); a model that changes its shape later must
        bear it too.
        """
        self._capture = choose_capture(self._driver)
        return self._capture

    def require_weights(self) -> None:
        """Raise ``UnsupportedModelError`` where the model was moved to where there are no numbers."""
        if self._driver.model.device.type == "meta":
            raise UnsupportedModelError(
                f"{self._driver.family}: its weights are on the meta device, which holds none; {_CHANGED}"
            )

    def identify(self) -> ModelIdentity:
        """Look at the model and return its identity now.

        Raises:
            ConfigurationError: it is in training mode.
            UnsupportedModelError: as it is by now it cannot be run, or not be resumed exactly.
        """
        try:
            identity = self._watch.look()
            if identity.shape not in self._can_store:
                self._can_store[identity.shape] = self._probe_again()
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{error}; {_CHANGED}") from error
        except (MilepostError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"{self._driver.family}: its forward call fails: {type(error).__name__}: {error}; {_CHANGED}"
            ) from error
        self._is_trusted = True
        return identity

    def require(self, identity: ModelIdentity, *, closely: bool = False) -> None:
        """Raise ``ModelChangedError`` unless the model is still ``identity``.

        Args:
            identity: What a request was begun with.
            closely: Look, even where nobody but this engine had a turn since the last look.
        """
        if (closely or not self._is_trusted) and self.identify() != identity:
            raise ModelChangedError(
                "the model was changed while this request was running, and an answer would mix two models; "
                "nothing was stored: ask again, and change a model only between requests"
            )

    def distrust(self) -> None:
        """Say that others had a turn, who may have changed the model."""
        self._is_trusted = False

    def can_store(self, identity: ModelIdentity) -> bool:
        """Return whether states of ``identity`` have the sizes that its caches were made for."""
        return self._can_store[identity.shape]

    def is_as_opened(self, identity: ModelIdentity) -> bool:
        """Return whether ``identity`` is the model's when it was opened."""
        return identity == self._opened

    def invalidate(self) -> None:
        """Take the weights for others, whatever they look like."""
        self._watch.invalidate()
        self._is_trusted = False

    def _run_shortly(self) -> None:
        tokens = torch.arange(2) % self._driver.vocabulary_size
        self._driver.advance(self._driver.start(), tokens)

    def _probe_again(self) -> bool:
        report = probe_resume(self._driver)
        opened_so = self._capture
        if opened_so is not None and opened_so.is_inside:
            capture = choose_capture(self._driver)
            if not capture.is_inside or capture.inside_from > opened_so.inside_from:
                raise UnsupportedModelError(
                    f"its states were taken {opened_so} when it was opened, and are to be taken {capture} as "
                    "it computes now"
                )
        sizes = report.checkpoint_bytes, report.kv_bytes_per_token
        opened = self.probe.checkpoint_bytes, self.probe.kv_bytes_per_token
        if sizes == opened:
            return True
        _log.warning(
            "%s: a checkpoint and a token of KV took %s bytes when it was opened and take %s as it computes "
            "now, so it is answered and nothing is stored; open the model again to have both",
            self._driver.family,
            opened,
            sizes,
        )
        return False


_CHANGED = "the model was changed after it was opened: undo that, or open it again"
