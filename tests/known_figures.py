"""Figures that may be unknown, where a test needs them known."""


def known(*figures: float | None) -> tuple[float, ...]:
    """The figures; fails where one is None."""
    assert None not in figures
    return tuple(figure for figure in figures if figure is not None)
