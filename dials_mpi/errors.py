"""The one exception that a user is meant to read."""


class BadInput(Exception):
    """The user's input cannot be used; the message is one sentence: what is wrong, where, what to do."""
