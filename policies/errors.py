"""The one error that `policies` raises."""


class PolicyError(ValueError):
    """A policy was given something it cannot honour: the message names field, value and repair.

    Nothing has changed when it is raised: neither the model nor anything that it would save.
    """
