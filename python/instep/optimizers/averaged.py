"""The averages in place of the parameters, for the length of a block."""

from __future__ import annotations

from contextlib import AbstractContextManager

from instep._support import documentation
from instep.optimizers.saved import Saved
from instep.optimizers.settings import EMA_DECAY

__all__ = ["Averaged"]


@documentation.without_quotes
class Averaged(Saved):
    """The part of an optimizer that shows averages where the parameters are."""

    __slots__ = ()

    def averaged(self) -> AbstractContextManager[None]:
        """Put the moving averages in place of the parameters for the length of a ``with`` block.

        This is for evaluation. Inside the block, the arrays of the parameters and of ``copy_to``
        hold the averages, rounded to their dtypes. After the block they hold their former values
        again, to the bit. This holds also if the body raises, or if a generator with such a block
        is abandoned. `step` refuses to run inside the block. `end_averaged` ends the block from
        outside.

        Rules that average the weights themselves (`ASGD`, `ScheduleFreeSGD`, `ScheduleFreeAdamW`)
        need no ``ema_decay``: the block shows their own average, which they document. A parameter
        that has not been stepped is shown as it is.

        Raises
        ------
        ValueError
            If the optimizer was made without ``ema_decay``, and its rule has no average of its own.
        RuntimeError
            Inside another such block.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.zeros(1)
        >>> optimizer = instep.SGD(w, lr=1.0, ema_decay=0.75)
        >>> optimizer.step(np.array([-4.0]))
        >>> with optimizer.averaged():
        ...     print(w)
        [1.]
        >>> w
        array([4.])
        """
        self._require_averages()
        self._warn_of_replaced()
        return self._plan.averaged()

    def _require_averages(self) -> None:
        """Raise ValueError if there are no averages."""
        if self.ema_decay is None and not self._shows_iterate:
            raise ValueError(
                f"ema_decay must be {EMA_DECAY} for averages, got None; make the optimizer with it"
            )

    def end_averaged(self) -> None:
        """Put the weights back if any block of `averaged` shows the averages.

        This is for a program that can't reach the block any more, such as a debugger or a notebook
        whose cell was interrupted. After this, the end of the block itself does nothing.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.zeros(1)
        >>> optimizer = instep.SGD(w, ema_decay=0.5)
        >>> block = optimizer.averaged()
        >>> block.__enter__()
        >>> optimizer.end_averaged()
        >>> optimizer.step(np.ones(1))      # no longer refused
        """
        self._plan.end_averaged()
