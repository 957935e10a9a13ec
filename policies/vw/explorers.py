"""Contextual bandits over actions with features: `cb_explore_adf` and its explorers.

References
----------
Bietti, Agarwal & Langford (2021), A Contextual Bandit Bake-off, JMLR 22(133): epsilon, bag, cover,
regcb. SquareCB: Foster & Rakhlin (2020), Beyond UCB, ICML.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from policies.base import BasePolicy, check_feedback
from policies.parameters import Parameters
from policies.pmf import normalise
from policies.snapshots import Snapshot
from policies.types import Action, Context, Feedback, FloatArray, action_ids
from policies.vw.library import Model, Reduction
from policies.vw.text import action_text, context_text, cost

_REMEMBERED = 4_096
_PROBE = "shared |c x\n|a y\n|a z"

# Found by learning on from saved models: what the library saves of these is not all of them.
_NOT_RESUMABLE = frozenset({"bag", "cover", "rnd"})
_ONLY_MTR = frozenset({"squarecb", "regcb", "regcbopt"})


class VowpalWabbitParameters(Parameters, frozen=True):
    """Parameters of `VowpalWabbit`."""

    exploration: Annotated[
        Literal[
            "epsilon", "first", "softmax", "squarecb", "regcb", "regcbopt", "bag", "cover", "rnd"
        ],
        msgspec.Meta(description="How the library explores; see the kinds below."),
    ] = "squarecb"
    epsilon: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Share explored by epsilon.")
    ] = 0.05
    first: Annotated[
        int, msgspec.Meta(ge=1, le=10**9, description="Decisions that first learns uniformly.")
    ] = 1_000
    softmax_lambda: Annotated[
        float, msgspec.Meta(ge=0, le=1e6, description="Softmax weighs by exp(lambda · reward).")
    ] = 1.0
    gamma_scale: Annotated[
        float, msgspec.Meta(gt=0, le=1e6, description="SquareCB's greed, at the first decision.")
    ] = 10.0
    gamma_exponent: Annotated[
        float, msgspec.Meta(ge=0, le=2, description="How SquareCB's greed grows with decisions.")
    ] = 0.5
    mellowness: Annotated[
        float, msgspec.Meta(gt=0, le=1e6, description="Width of regcb's and regcbopt's intervals.")
    ] = 0.1
    ensemble: Annotated[
        int, msgspec.Meta(ge=1, le=100, description="Models of bag, cover and rnd.")
    ] = 5
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
        if self.exploration in _ONLY_MTR and self.cb_type != "mtr":
            raise ValueError(
                f'cb_type must be "mtr" with {self.exploration}. Use mtr, or another exploration'
            )


class _State(msgspec.Struct, forbid_unknown_fields=True):
    model: bytes


class VowpalWabbit(BasePolicy[VowpalWabbitParameters]):
    """A `cb_explore_adf` workspace: for contexts of many sparse features, and action features.

    ``expected`` is None: the library gives an explorer's probabilities, not its costs. Bag, first
    and regcb give some actions probability 0: the support that evaluation needs comes from the
    exploration floor.
    """

    kind = "vw"
    learns = True
    parameters_model = VowpalWabbitParameters

    def __init__(self, parameters: VowpalWabbitParameters) -> None:
        super().__init__(parameters)
        self._reduction = Reduction(_options(parameters), _PROBE)
        self._model = Model(self._reduction)
        self._lines: dict[Action, str] = {}
        self._blocks: dict[tuple[Action, ...], str] = {}

    @property
    def resumable(self) -> bool:
        """Whether the library saves all of it: not of bag, cover and rnd, nor of ``cb_type`` dr."""
        given = self.parameters
        return given.exploration not in _NOT_RESUMABLE and given.cb_type != "dr"

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): the explorer's probabilities, renormalised in float64."""
        return self._predict(self._shared(context), self._block(actions))

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k): one prediction for each distinct context text."""
        block = self._block(actions)
        texts = [self._shared(context) for context in contexts]
        distinct = {text: self._predict(text, block) for text in dict.fromkeys(texts)}
        pmf = np.empty((len(texts), len(actions)))
        for row, text in enumerate(texts):
            pmf[row] = distinct[text]
        return pmf

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """One gradient step a decision, in order."""
        check_feedback(feedback)
        for example in [self._labelled(item) for item in feedback]:
            self._model.learn(example)

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        self._model = Model(self._reduction, snapshot.state_as(_State).model)

    def _state(self) -> dict[str, Any]:
        return {"model": self._model.saved()}

    def _predict(self, shared: str, block: str) -> FloatArray:
        # Sums are off by float32's rounding, and regcbopt's by whole numbers where actions tie.
        return normalise(np.array(self._model.action_scores(shared + block), dtype=np.float64))

    def _labelled(self, item: Feedback) -> str:
        lines = [self._line(action) for action in item.actions]
        drawn = [action.id for action in item.actions].index(item.action)
        lines[drawn] = f"0:{cost(item)}:{float(item.propensity)!r} {lines[drawn]}"
        return self._shared(item.context) + "\n".join(lines)

    def _shared(self, context: Context) -> str:
        return f"shared {context_text(context, self.parameters.features)}\n"

    def _block(self, actions: Sequence[Action]) -> str:
        """The lines of an eligible set, of which there are few."""
        key = tuple(actions)
        block = self._blocks.get(key)
        if block is None:
            action_ids(actions)
            block = "\n".join([self._line(action) for action in actions])
            if len(self._blocks) >= _REMEMBERED:
                self._blocks.clear()
            self._blocks[key] = block
        return block

    def _line(self, action: Action) -> str:
        line = self._lines.get(action)
        if line is None:
            line = action_text(action)
            if len(self._lines) >= _REMEMBERED:
                self._lines.clear()
            self._lines[action] = line
        return line


def _options(parameters: VowpalWabbitParameters) -> tuple[str, ...]:
    options = ["--cb_explore_adf", "--cb_type", parameters.cb_type]
    options += ["--bit_precision", str(parameters.bits)]
    options += ["--learning_rate", repr(parameters.learning_rate)]
    if parameters.interactions:
        options += ["--quadratic", "ca"]
    return (*options, *_explorer(parameters))


def _explorer(parameters: VowpalWabbitParameters) -> tuple[str, ...]:
    ensemble = str(parameters.ensemble)
    mellow = ("--regcb", "--mellowness", repr(parameters.mellowness))
    match parameters.exploration:
        case "epsilon":
            return ("--epsilon", repr(parameters.epsilon))
        case "first":
            return ("--first", str(parameters.first))
        case "softmax":
            return ("--softmax", "--lambda", repr(parameters.softmax_lambda))
        case "squarecb":
            scale, exponent = repr(parameters.gamma_scale), repr(parameters.gamma_exponent)
            return ("--squarecb", "--gamma_scale", scale, "--gamma_exponent", exponent)
        case "regcb":
            return mellow
        case "regcbopt":
            return (*mellow, "--regcbopt")
        case "bag" | "cover" | "rnd" as many:
            return (f"--{many}", ensemble)
