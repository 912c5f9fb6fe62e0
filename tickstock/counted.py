"""Numbers of things, in words."""


def counted(number: int, thing: str) -> str:
    """1 gap, 1,234 gaps."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
