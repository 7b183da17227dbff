"""The ways in which an attack ends without a value."""


class Failed(Exception):
    """An attack broke off, or answered what cannot be scored; the reason is the message."""


class NotApplicable(Exception):
    """The view cannot carry what the attack is after; the reason is the message."""


class BudgetExhausted(Exception):
    """An attack ran out of what it may spend."""


class Unscored(Exception):
    """The answer is sealed, and there is no truth to score it by; the reason is the message."""
