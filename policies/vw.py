"""Vowpal Wabbit's contextual bandits behind our protocol; nothing else knows the library.

`cb_explore_adf` with the explorers whose saved model resumes exactly: epsilon-greedy and
SquareCB. Contexts are namespace ``c``, actions namespace ``a`` of a text example; the cost is
the reward's negative. What the library would accept in silence is refused before it: NaN,
infinities and magnitudes that overflow its float32 squares; names and strings are
percent-encoded, so that none can end a feature, a namespace or a line.

The library holds the interpreter's lock and a workspace is not thread-safe: use a policy from
one thread at a time.

References
----------
Bietti, Agarwal & Langford (2021), A Contextual Bandit Bake-off, JMLR 22(133). SquareCB: Foster &
Rakhlin (2020), Beyond UCB, ICML.
"""

import functools
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np

from policies.base import BasePolicy, check_feedback
from policies.errors import PolicyError
from policies.parameters import Parameters
from policies.pmf import normalise
from policies.snapshots import Snapshot
from policies.types import Action, Context, Feedback, FloatArray, Value, action_ids, check_value

if TYPE_CHECKING:
    from vowpalwabbit import Workspace

_LARGEST = 1e9  # VW squares features and costs in float32, which ends at 3e38
_ACTION_LINES = 4096
_HEADERS = 64  # sets of parameters, far more than one workspace declares


class VowpalWabbitParameters(Parameters, frozen=True):
    """Parameters of `VowpalWabbit`."""

    exploration: Annotated[
        Literal["epsilon", "squarecb"],
        msgspec.Meta(description="Epsilon-greedy, or SquareCB's inverse-gap weights."),
    ] = "squarecb"
    epsilon: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Share explored by epsilon-greedy.")
    ] = 0.05
    gamma_scale: Annotated[
        float, msgspec.Meta(gt=0, le=1e6, description="SquareCB's greed, at the first decision.")
    ] = 10.0
    gamma_exponent: Annotated[
        float, msgspec.Meta(ge=0, le=2, description="How SquareCB's greed grows with decisions.")
    ] = 0.5
    cb_type: Annotated[
        Literal["mtr", "dr", "ips"],
        msgspec.Meta(description="How one action's reward teaches of the others."),
    ] = "mtr"
    learning_rate: Annotated[
        float, msgspec.Meta(gt=0, le=100, description="Step of the gradient descent.")
    ] = 0.5
    bits: Annotated[
        int, msgspec.Meta(ge=8, le=26, description="The model has 2^bits hashed weights.")
    ] = 18
    interactions: Annotated[
        bool, msgspec.Meta(description="Cross each context feature with each action feature.")
    ] = True
    features: Annotated[
        tuple[str, ...] | None,
        msgspec.Meta(description="Context attributes to read; null reads all that are given."),
    ] = None

    def __post_init__(self) -> None:
        if self.exploration == "squarecb" and self.cb_type != "mtr":
            raise ValueError('cb_type must be "mtr" with squarecb. Use mtr, or epsilon')


class _State(msgspec.Struct, forbid_unknown_fields=True):
    model: bytes


class VowpalWabbit(BasePolicy[VowpalWabbitParameters]):
    """A `cb_explore_adf` workspace: for contexts of many sparse features, and action features.

    ``expected`` is None: the library gives an explorer's probabilities, not its costs.
    """

    kind = "vw"
    learns = True
    parameters_model = VowpalWabbitParameters

    def __init__(self, parameters: VowpalWabbitParameters) -> None:
        super().__init__(parameters)
        self._lines: dict[Action, str] = {}
        self._workspace = _start(_options(parameters))

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): the explorer's probabilities, renormalised in float64."""
        action_ids(actions)
        return self._predict(self._shared(context), [self._line(action) for action in actions])

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k): one prediction for each distinct context text."""
        action_ids(actions)
        lines = [self._line(action) for action in actions]
        texts = [self._shared(context) for context in contexts]
        distinct = {text: self._predict(text, lines) for text in dict.fromkeys(texts)}
        pmf = np.empty((len(texts), len(lines)))
        for row, text in enumerate(texts):
            pmf[row] = distinct[text]
        return pmf

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """One gradient step a decision, in order."""
        check_feedback(feedback)
        examples = [self._labelled(item) for item in feedback]
        for example in examples:
            self._workspace.learn(example)

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        self._workspace = _load(_options(self.parameters), snapshot.state_as(_State).model)

    def _state(self) -> dict[str, Any]:
        return {"model": _without_counters(_save(self._workspace), _options(self.parameters))}

    def _predict(self, shared: str, lines: Sequence[str]) -> FloatArray:
        return normalise(np.array(self._workspace.predict([shared, *lines]), dtype=np.float64))

    def _labelled(self, item: Feedback) -> list[str]:
        if abs(item.reward) > _LARGEST:
            raise PolicyError(f"feedback.reward is {item.reward!r}. Rescale it to within ±1e9.")
        lines = [self._line(action) for action in item.actions]
        drawn = [action.id for action in item.actions].index(item.action)
        lines[drawn] = f"0:{-float(item.reward)!r}:{float(item.propensity)!r} {lines[drawn]}"
        return [self._shared(item.context), *lines]

    def _shared(self, context: Context) -> str:
        features = self.parameters.features
        if features is not None:
            context = {name: context.get(name) for name in features}
        return "shared |c " + _features(context, "context")

    def _line(self, action: Action) -> str:
        line = self._lines.get(action)
        if line is None:
            text = _features(action.features, f"action {action.id!r}")
            line = f"|a id={action.id} {text}".rstrip()
            if len(self._lines) >= _ACTION_LINES:
                self._lines.clear()
            self._lines[action] = line
        return line


def _features(attributes: Mapping[str, Value], owner: str) -> str:
    """Features as text: ``number:value``, ``category=value``, ``missing?``.

    ``=`` and ``?`` are percent-encoded within names, so the three forms never meet. Sorted, since
    the order of features changes VW's float32 sums and the order of keys is no part of the log.
    """
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


def _options(parameters: VowpalWabbitParameters) -> tuple[str, ...]:
    options = ["--cb_explore_adf", "--cb_type", parameters.cb_type]
    options += ["--bit_precision", str(parameters.bits)]
    options += ["--learning_rate", repr(parameters.learning_rate)]
    if parameters.interactions:
        options += ["--quadratic", "ca"]
    if parameters.exploration == "epsilon":
        return (*options, "--epsilon", repr(parameters.epsilon))
    gamma = ["--gamma_scale", repr(parameters.gamma_scale)]
    gamma += ["--gamma_exponent", repr(parameters.gamma_exponent)]
    return (*options, "--squarecb", *gamma)


def _start(options: Sequence[str]) -> "Workspace":
    from vowpalwabbit import Workspace  # noqa: PLC0415  # the server starts without it

    return Workspace(arg_list=["--quiet", *options])


@contextmanager
def _model_file() -> Iterator[Path]:
    """A path for a model, gone afterwards: the library reads and writes files alone.

    Raises
    ------
    PolicyError
        If the file cannot be written or read.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="evenhand-") as folder:
            yield Path(folder) / "model"
    except OSError as error:
        raise PolicyError(
            f"Vowpal Wabbit's model cannot pass through {tempfile.gettempdir()!r}: {error}. "
            "Free space there, or set TMPDIR to a folder that can be written."
        ) from error


def _save(workspace: "Workspace") -> bytes:
    with _model_file() as path:
        workspace.save(str(path))
        return path.read_bytes()


def _load(options: tuple[str, ...], model: bytes) -> "Workspace":
    # VW reads its options from the model, and damaged ones without complaint: the part that
    # holds them must be what these parameters write.
    start = _header(options)
    if model[start.options] != start.bytes[start.options]:
        raise PolicyError(
            "snapshot.state.model was not made with these parameters by this version of Vowpal "
            "Wabbit. Refit the policy from the log."
        )
    with _model_file() as path:
        path.write_bytes(model)
        try:
            return _start(["--initial_regressor", str(path)])
        except RuntimeError as error:
            raise PolicyError(f"snapshot.state.model is no model: {error}") from error


# VW counts predictions in the model it saves, and zeroes most of those counts when it loads one:
# they are telemetry. A snapshot must change by learning alone, so they are zeroed in it.
# Layout (save_load_online_state in VW's gd.cc): t, sum of losses, losses since the last report,
# report interval | smallest and largest label, which clip predictions | weighted labelled
# examples, weighted labels, weighted unlabelled examples, examples, features.
_COUNTERS = struct.Struct("<3df2f3d2Q")
_AFTER_COUNTERS = 40  # bytes of the header behind them


class _Header(msgspec.Struct, frozen=True):
    """What a model without weights looks like, and where its parts end."""

    bytes: bytes
    options: slice
    counters: int


@functools.lru_cache(maxsize=_HEADERS)
def _header(options: tuple[str, ...]) -> _Header:
    """The header that these options write, checked to be laid out as expected.

    Raises
    ------
    PolicyError
        If this version of Vowpal Wabbit lays out its models in another way.
    """
    workspace = _start(options)
    fresh = _save(workspace)
    workspace.predict(["shared |c x", "|a y", "|a z"])
    counters = len(fresh) - _AFTER_COUNTERS - _COUNTERS.size
    before = _COUNTERS.unpack_from(fresh, counters)
    predicted = _save(workspace)
    after = _COUNTERS.unpack_from(predicted, counters)
    rest = predicted[:counters] + predicted[counters + _COUNTERS.size :]
    unchanged = rest == fresh[:counters] + fresh[counters + _COUNTERS.size :]
    counted = after[0] - before[0] == after[8] - before[8] == after[9] - before[9] == 1
    if not (unchanged and counted and after[4:6] == before[4:6]):
        raise PolicyError(
            "the installed Vowpal Wabbit lays out its models unlike 9.11. Install vowpalwabbit "
            "as pinned in requirements.lock."
        )
    text = fresh.index(b" --")
    options_in_model = slice(
        text - 4, fresh.index(b"\0", text) + 1
    )  # with their length before them
    return _Header(fresh, options_in_model, counters)


def _without_counters(model: bytes, options: tuple[str, ...]) -> bytes:
    start = _header(options)
    values = list(_COUNTERS.unpack_from(model, start.counters))
    zeroed = [0.0, 0.0, 0.0, 0.0, values[4], values[5], 0.0, 0.0, 0.0, 0, 0]
    return (
        model[: start.counters] + _COUNTERS.pack(*zeroed) + model[start.counters + _COUNTERS.size :]
    )
