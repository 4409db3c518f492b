"""The instruction-set level that the kernels use."""

import os

from instep import _core
from instep._support.wording import kind

__all__ = ["isa_levels", "set_isa"]


def isa_levels() -> tuple[str, ...]:
    """Return the instruction-set levels that can be used here, best first.

    Each level is compiled in, and this CPU and operating system support it. On x86-64 machines they
    are "x86-64-v4" (AVX-512), "x86-64-v3" (AVX2) and "x86-64-v2" (SSE4.2), as far as supported;
    elsewhere there is "baseline".

    Examples
    --------
    >>> import instep
    >>> instep.config()["isa"]["used"] in instep.isa_levels()
    True
    """
    return tuple(_core.usable_levels())


def set_isa(name: str) -> None:
    """Use an instruction-set level from now on, in this process.

    All levels give the same bits. This function is for measurements and for tests. The environment
    variable ``INSTEP_ISA`` does the same when instep is imported.

    Parameters
    ----------
    name : str
        One of `isa_levels`.

    Raises
    ------
    TypeError
        If `name` is not a str.
    ValueError
        If the level is unknown or can't be used here.

    Examples
    --------
    >>> import instep
    >>> instep.set_isa(instep.isa_levels()[-1])
    >>> instep.set_isa(instep.isa_levels()[0])
    """
    if not isinstance(name, str):
        raise TypeError(
            f"the instruction-set level must be one of {', '.join(isa_levels())}, got {kind(name)}"
        )
    # Encoded such that the core can take it: the bytes of the environment may not be text.
    _core.set_level(name.encode("utf-8", "backslashreplace").decode())


def start() -> None:
    name = os.environ.get("INSTEP_ISA")
    if not name:  # an empty value counts as not set, as in shells
        return
    try:
        set_isa(name)
    except ValueError as error:
        raise ValueError(f"the environment variable INSTEP_ISA: {error}") from None
