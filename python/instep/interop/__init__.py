"""State of optimizers in the form of other libraries.

>>> import numpy as np, instep
>>> optimizer = instep.Adam({"w": np.ones(2)}, lr=0.1)
>>> optimizer.step({"w": np.ones(2)})
>>> state = instep.interop.to_torch_state_dict(optimizer)
>>> state["param_groups"][0]["lr"], state["state"][0]["step"]
(0.1, 1.0)
"""

from instep.interop.torch_form import from_torch_state_dict, to_torch_state_dict


def __dir__() -> list[str]:
    return __all__


__all__ = ["from_torch_state_dict", "to_torch_state_dict"]
