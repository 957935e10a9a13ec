"""The one error that `recsys` raises."""


class RecsysError(ValueError):
    """The recommender was given something it cannot honour: field, value and repair in words.

    Nothing has changed when it is raised: catalogues, models and slates are values.
    """
