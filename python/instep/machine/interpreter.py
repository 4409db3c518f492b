"""Refuses interpreters that the core can't be imported into."""

import sys


def check() -> None:
    """Raise ImportError in a subinterpreter: imported there, NumPy or the core may wait for the main one for ever."""
    try:
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters  # noqa: PLC0415
        else:
            import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:  # a Python that was built without other interpreters
        return
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "instep can't be imported in a subinterpreter, which NumPy doesn't support; "
            "import it in the main interpreter or in a process of its own"
        )
