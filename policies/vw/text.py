"""Contexts, actions and labels as Vowpal Wabbit's text, which nothing in them can break out of.

Contexts are namespace ``c``, actions namespace ``a``; the cost is the reward's negative. A feature
is ``number:value``, ``category=value`` or ``missing?``. Names and strings are percent-encoded, also
``=`` and ``?`` within them, so that none ends a feature, a namespace or a line, and the three forms
never meet. What the library would take in silence is refused here: NaN, infinities, and magnitudes
that overflow its float32 squares.
"""

import functools
from collections.abc import Mapping
from urllib.parse import quote

from policies.errors import PolicyError
from policies.types import Action, Context, Feedback, Value, check_name, check_value

_LARGEST = 1e9  # VW squares features and costs in float32, which ends at 3e38


def context_text(context: Context, features: tuple[str, ...] | None) -> str:
    """The namespace of a context, of the attributes that are read; None reads all.

    Raises
    ------
    PolicyError
        If one of them is beyond ±1e9, not finite or of no known type.
    """
    if features is not None:
        context = {name: context.get(name) for name in features}
    return "|c " + _features(context, "context")


def action_text(action: Action) -> str:
    """The namespace of an action: its id and its features.

    Raises
    ------
    PolicyError
        As `context_text`.
    """
    text = _features(action.features, f"action {action.id!r}")
    return f"|a id={action.id} {text}".rstrip()


def cost(feedback: Feedback) -> str:
    """The cost of a decision.

    Raises
    ------
    PolicyError
        If the reward is beyond ±1e9.
    """
    if abs(feedback.reward) > _LARGEST:
        raise PolicyError(f"feedback.reward is {feedback.reward!r}. Rescale it to within ±1e9.")
    return repr(-float(feedback.reward))


def _features(attributes: Mapping[str, Value], owner: str) -> str:
    """Sorted, as the order of features changes float32 sums and that of keys is not in the log."""
    for name in attributes:
        check_name(name, owner)
    return " ".join([_feature(name, attributes[name], owner) for name in sorted(attributes)])


def _feature(name: str, value: Value, owner: str) -> str:
    if type(value) is float and -_LARGEST <= value <= _LARGEST:
        return f"{_escape(name)}:{value:.9g}"  # all the digits that VW's float32 keeps
    if isinstance(value, str):
        return f"{_escape(name)}={_escape(value)}"
    if value is None:
        return f"{_escape(name)}?"
    check_value(name, value, owner)
    if not -_LARGEST <= value <= _LARGEST:
        raise PolicyError(f"{owner}: {name!r} is {value!r}. Rescale it to within ±1e9.")
    return f"{_escape(name)}:{float(value):.9g}"


@functools.lru_cache(maxsize=65_536)
def _escape(text: str) -> str:
    return quote(text, safe="")
