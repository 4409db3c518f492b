"""Refuses interpreters in which the core can't be imported."""


def check() -> None:
    """Raise ImportError in a subinterpreter: there NumPy or the core may wait for the main interpreter for ever."""
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        try:  # the name of the module until Python 3.12
            import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]  # noqa: PLC0415
        except ImportError:  # a Python that can have no other interpreters
            return
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "instep can't be imported in a subinterpreter, which NumPy doesn't support; "
            "import it in the main interpreter or in a process of its own"
        )
