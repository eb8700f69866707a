"""The one exception of the runner."""


class RunError(Exception):
    """A run that cannot go on; its text is one sentence for the user."""
