"""Counts as people write them: `1 trade`, `2 trades`."""


def counted(number: int, noun: str) -> str:
    """The number with its noun, which takes an s for all but one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
