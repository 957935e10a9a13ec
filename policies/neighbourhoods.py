"""MABWiser's neighbourhood, cluster and tree policies behind our protocol; nothing else knows it.

Each keeps the decisions it learned last and judges an action by what it earned where contexts were
alike: among the nearest, within a radius, in one bucket of a locality-sensitive hash, in one
cluster, or in one leaf of a tree of its own. What the library leaves open is settled here:

- It has no pmf. Where its choice is no matter of chance (epsilon-greedy, UCB1) the pmf is exact.
  Where it is (Thompson, softmax) the choice is simulated n times from a seed that is a hash of the
  context, the eligible actions and how many decisions were learned, and an action that won w of n
  has probability (w + 1/k) / (n + 1): off from what the library would draw by a standard error of
  at most 1 / (2 √n), yet exactly what is drawn from here.
- Its predictions change the generator of the model. Here each begins from its own seed.
- It saves itself as a pickle alone. Here the decisions are the snapshot, and it is fitted to them
  anew when one is read; learning by its ``partial_fit`` would copy all of them each time.
- It counts an action without decisions nearby as 0, whatever the rewards' origin and unit. Here
  rewards are counted from their mean, in standard deviations; but Thompson's must be 0 or 1.
- It knows no action that was never tried. Here each such has probability 1 / k.

References
----------
Strong, Kleynhans & Kadıoğlu (2021), MABWiser: Parallelizable Contextual Multi-Armed Bandits,
International Journal on Artificial Intelligence Tools 30(4). Trees: Elmachtoub et al. (2017), A
Practical Method for Solving Contextual Bandit Problems Using Decision Trees, UAI.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from policies.base import BasePolicy, check_feedback
from policies.encoding import Column, Encoder
from policies.errors import PolicyError
from policies.parameters import ActionId, Parameters
from policies.snapshots import Array, Snapshot
from policies.types import Action, Context, Feedback, FloatArray, action_ids

_SIMULATED = frozenset({"thompson", "softmax"})
Metric = Literal["euclidean", "cityblock", "chebyshev", "cosine"]


class NeighbourhoodParameters(Parameters, frozen=True):
    """What every kind here takes."""

    learning: Annotated[
        Literal["epsilon_greedy", "ucb1", "thompson", "softmax"],
        msgspec.Meta(description="How it chooses by what was earned in like contexts."),
    ] = "epsilon_greedy"
    epsilon: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Share explored by epsilon_greedy.")
    ] = 0.1
    alpha: Annotated[float, msgspec.Meta(ge=0, le=1e3, description="Factor on ucb1's bonus.")] = 1.0
    temperature: Annotated[
        float,
        msgspec.Meta(
            ge=1e-3, le=1e3, description="Of softmax, in standard deviations of the reward."
        ),
    ] = 1.0
    simulations: Annotated[
        int, msgspec.Meta(ge=1, le=100_000, description="For thompson and softmax, a decision.")
    ] = 100
    memory: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000, description="How many decisions are kept.")
    ] = 5_000
    seed: Annotated[
        int, msgspec.Meta(ge=0, le=2**31 - 1, description="Of simulations, planes and clusters.")
    ] = 0
    features: Annotated[
        tuple[str, ...] | None,
        msgspec.Meta(description="Context attributes to read; null reads all that are given."),
    ] = None
    max_categories: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=1024, description="Strings of one attribute that have columns of their own."
        ),
    ] = 64

    def __post_init__(self) -> None:
        if self.features is not None and len(set(self.features)) != len(self.features):
            raise ValueError("features holds a name twice. Name each attribute once")


N = TypeVar("N", bound=NeighbourhoodParameters)


class _State(msgspec.Struct, forbid_unknown_fields=True):
    actions: list[ActionId]
    columns: list[Column]
    learned: Annotated[int, msgspec.Meta(ge=0)]


class _Fitted:
    """The library, fitted to rewards counted from ``mean`` in units of ``deviation``.

    ``arms`` maps each action that it has seen to the library's name of it.
    """

    def __init__(self, mab: Any, arms: dict[str, int], mean: float, deviation: float) -> None:
        self._mab = mab
        self.arms = arms
        self.mean = mean
        self.deviation = deviation

    def scores(self, X: FloatArray, arms: Sequence[int], seed: int = 0) -> FloatArray:
        """(n, k): the library's expectation of each arm at each context, NaN where it has none."""
        from mabwiser.utils import create_rng  # noqa: PLC0415  # slow to import

        # The generator that its predictions draw from: there is no other way to repeat one.
        self._mab._imp.rng = create_rng(seed)  # noqa: SLF001
        found = self._mab.predict_expectations(X)
        rows = [found] if isinstance(found, dict) else found
        return np.array([[row[arm] for arm in arms] for row in rows], dtype=np.float64)


class _Neighbourhood(BasePolicy[N]):
    """A history of encoded contexts, actions and rewards, and the library fitted to it."""

    learns = True

    def __init__(self, parameters: N) -> None:
        import mabwiser.mab  # noqa: F401, PLC0415  # takes a second: not at the first decision

        super().__init__(parameters)
        self._encoder = Encoder(parameters.features, parameters.max_categories)
        self._index: dict[str, int] = {}
        self._contexts: list[FloatArray] = []
        self._drawn: list[int] = []
        self._rewards: list[float] = []
        self._learned = 0
        self._fit: _Fitted | None = None

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,): exact for epsilon_greedy and ucb1, else simulated."""
        return self.pmf_and_expected(context, actions)[0]

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k)."""
        ids = action_ids(actions)
        return self._answer(self._encoder.encode_many(contexts)[0], ids)[0]

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray | None:
        """(k,) mean rewards in like contexts, by epsilon_greedy; None otherwise.

        An action without any there is expected to earn the mean of all rewards.
        """
        return self.pmf_and_expected(context, actions)[1]

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray | None]:
        """See `policies.types.Policy.pmf_and_expected`."""
        ids = action_ids(actions)
        pmf, expected = self._answer(self._encoder.encode(context)[0][None], ids)
        return pmf[0], None if expected is None else expected[0]

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Remember each decision, and forget those beyond ``memory``."""
        check_feedback(feedback)
        for item in feedback:
            if self.parameters.learning == "thompson" and item.reward not in {0, 1}:
                raise PolicyError(
                    f"feedback.reward is {item.reward!r}, and thompson counts successes. Reward "
                    "with 0 or 1, or choose another learning."
                )
        for item in feedback:
            self._remember(item)
        self._trim()
        self._learned += len(feedback)
        self._fit = None

    def restore(self, snapshot: Snapshot) -> None:
        """See `BasePolicy.restore`."""
        state = snapshot.state_as(_State)
        parameters = self.parameters
        self._encoder = Encoder(parameters.features, parameters.max_categories, state.columns)
        self._index = {action: at for at, action in enumerate(state.actions)}
        self._learned = state.learned
        n = min(state.learned, parameters.memory)
        contexts = snapshot.array("contexts", "f8", (n, self._encoder.width))
        drawn = snapshot.array("drawn", "i8", (n,))
        rewards = snapshot.array("rewards", "f8", (n,))
        if len(self._index) != len(state.actions):
            raise PolicyError("snapshot.state.actions names an action twice.")
        if n and not 0 <= drawn.min() <= drawn.max() < len(self._index):
            raise PolicyError("snapshot.arrays.drawn holds an index of no action.")
        self._contexts = list(np.asarray(contexts, np.float64))
        self._drawn, self._rewards = drawn.tolist(), rewards.tolist()
        self._fit = None
        self._fitted()  # what is read is there to decide: its first decision need not wait

    def _state(self) -> dict[str, Any]:
        return {
            "actions": list(self._index),
            "columns": [msgspec.to_builtins(column) for column in self._encoder.columns],
            "learned": self._learned,
        }

    def _arrays(self) -> dict[str, Array]:
        return {
            "contexts": self._matrix(),
            "drawn": np.array(self._drawn, dtype=np.int64),
            "rewards": np.array(self._rewards, dtype=np.float64),
        }

    def _remember(self, item: Feedback) -> None:
        self._encoder.grow(item.context)
        x, _ = self._encoder.encode(item.context)
        for column, factor in self._encoder.widen_units(item.context, x):
            for row in self._contexts:
                row[column : column + 1] /= factor  # a row from before the column is shorter
        self._contexts.append(x)
        self._drawn.append(self._index.setdefault(item.action, len(self._index)))
        self._rewards.append(float(item.reward))

    def _trim(self) -> None:
        memory = self.parameters.memory
        del self._contexts[:-memory], self._drawn[:-memory], self._rewards[:-memory]

    def _matrix(self) -> FloatArray:
        """(n, d), zero where a context came before a column."""
        matrix = np.zeros((len(self._contexts), self._encoder.width))
        for row, x in zip(matrix, self._contexts, strict=True):
            row[: len(x)] = x
        return matrix

    def _fitted(self) -> _Fitted | None:
        """The library as fitted to what is remembered; None where that is nothing."""
        if self._fit is None and self._rewards:
            self._fit = self._refitted()
        return self._fit

    def _refitted(self) -> _Fitted:
        from mabwiser.mab import MAB  # noqa: PLC0415  # slow to import

        drawn, rewards = np.array(self._drawn), np.array(self._rewards)
        mean, deviation = 0.0, 1.0
        if self.parameters.learning != "thompson":
            mean, deviation = float(rewards.mean()), float(rewards.std()) or 1.0
        tried = np.unique(drawn).tolist()
        ids = list(self._index)
        X = self._matrix()
        policy = self._learning_policy(), self._neighbourhood(X)
        mab = MAB(tried, *policy, seed=self.parameters.seed, n_jobs=1)
        _one_thread(lambda: mab.fit(drawn, (rewards - mean) / deviation, X))
        return _Fitted(mab, {ids[arm]: arm for arm in tried}, mean, deviation)

    def _learning_policy(self) -> Any:
        from mabwiser.mab import LearningPolicy  # noqa: PLC0415  # slow to import

        given = self.parameters
        match given.learning:
            case "epsilon_greedy":
                return LearningPolicy.EpsilonGreedy(0.0)  # ε is mixed in exactly, afterwards
            case "ucb1":
                return LearningPolicy.UCB1(given.alpha)
            case "thompson":
                return LearningPolicy.ThompsonSampling()
            case "softmax":
                return LearningPolicy.Softmax(given.temperature)

    @abstractmethod
    def _neighbourhood(self, X: FloatArray) -> Any:
        """The library's policy of what is alike, for contexts (n, d) with n ≥ 1."""

    def _answer(self, X: FloatArray, ids: tuple[str, ...]) -> tuple[FloatArray, FloatArray | None]:
        """(n, k) probabilities and, by epsilon_greedy, (n, k) expected rewards."""
        given, k = self.parameters, len(ids)
        pmf = np.full((len(X), k), 1.0 / k)
        expected = np.zeros((len(X), k)) if given.learning == "epsilon_greedy" else None
        fitted = self._fitted()
        if fitted is None or len(X) == 0:
            return pmf, expected
        # In the order of their ids, so that the order asked in changes no simulation.
        names = sorted(i for i in ids if i in fitted.arms)
        tried = [ids.index(name) for name in names]
        arms = [fitted.arms[name] for name in names]
        if expected is not None:
            expected += fitted.mean
        if not tried:
            return pmf, expected
        if given.learning in _SIMULATED:
            chosen = np.array([self._simulated(fitted, x, arms, names) for x in X])
        else:
            scores = fitted.scores(X, arms)
            chosen = _shares(scores)
            if expected is not None:
                chosen = (1.0 - given.epsilon) * chosen + given.epsilon / len(tried)
                expected[:, tried] += fitted.deviation * np.nan_to_num(scores)
        pmf[:, tried] = chosen * (len(tried) / k)
        return pmf, expected

    def _simulated(
        self, fitted: _Fitted, x: FloatArray, arms: Sequence[int], names: Sequence[str]
    ) -> FloatArray:
        n, k = self.parameters.simulations, len(arms)
        text = f"{self.parameters.seed}:{self._learned}:{','.join(names)}:".encode()
        digest = hashlib.sha256(text + x.astype("<f8").tobytes()).digest()
        scores = fitted.scores(np.tile(x, (n, 1)), arms, int.from_bytes(digest[:6], "big"))
        return np.asarray((_shares(scores).sum(axis=0) + 1.0 / k) / (n + 1.0), dtype=np.float64)


def _shares(scores: FloatArray) -> FloatArray:
    """(n, k): 1 for the largest of each row, ties alike; all alike where there is no score."""
    best = np.nan_to_num(scores)
    best = best == best.max(axis=1, keepdims=True)
    return np.asarray(best / best.sum(axis=1, keepdims=True), dtype=np.float64)


def _one_thread(fit: Any) -> None:
    """Fit in one thread: k-means adds up its threads' sums in the order in which they end."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  # comes with scikit-learn

    with threadpool_limits(limits=1):
        fit()


def _nearest(k: int, metric: str = "euclidean") -> Any:
    from mabwiser.mab import NeighborhoodPolicy  # noqa: PLC0415  # slow to import

    return NeighborhoodPolicy.KNearest(k, metric)


class NearestParameters(NeighbourhoodParameters, frozen=True):
    """Parameters of `MABNearest`."""

    k: Annotated[int, msgspec.Meta(ge=1, le=100_000, description="How many are the nearest.")] = 50
    metric: Annotated[Metric, msgspec.Meta(description="Distance between contexts.")] = "euclidean"


class MABNearest(_Neighbourhood[NearestParameters]):
    """By what was earned in the k nearest contexts."""

    kind = "mab_nearest"
    parameters_model = NearestParameters

    def _neighbourhood(self, X: FloatArray) -> Any:
        return _nearest(min(self.parameters.k, len(X)), self.parameters.metric)


class RadiusParameters(NeighbourhoodParameters, frozen=True):
    """Parameters of `MABRadius`."""

    radius: Annotated[
        float, msgspec.Meta(gt=0, le=1e6, description="How far, in the units of the columns.")
    ] = 1.0
    metric: Annotated[Metric, msgspec.Meta(description="Distance between contexts.")] = "euclidean"


class MABRadius(_Neighbourhood[RadiusParameters]):
    """By what was earned in contexts within a radius; all alike where there is none."""

    kind = "mab_radius"
    parameters_model = RadiusParameters

    def _neighbourhood(self, X: FloatArray) -> Any:  # noqa: ARG002
        from mabwiser.mab import NeighborhoodPolicy  # noqa: PLC0415  # slow to import

        return NeighborhoodPolicy.Radius(self.parameters.radius, self.parameters.metric)


class LSHParameters(NeighbourhoodParameters, frozen=True):
    """Parameters of `MABLSH`."""

    dimensions: Annotated[
        int, msgspec.Meta(ge=1, le=20, description="Random planes of a table.")
    ] = 5
    tables: Annotated[int, msgspec.Meta(ge=1, le=100, description="Hash tables.")] = 3


class MABLSH(_Neighbourhood[LSHParameters]):
    """By what was earned in contexts on the same side of a table's planes, of any table."""

    kind = "mab_lsh"
    parameters_model = LSHParameters

    def _neighbourhood(self, X: FloatArray) -> Any:  # noqa: ARG002
        from mabwiser.mab import NeighborhoodPolicy  # noqa: PLC0415  # slow to import

        return NeighborhoodPolicy.LSHNearest(self.parameters.dimensions, self.parameters.tables)


class ClustersParameters(NeighbourhoodParameters, frozen=True):
    """Parameters of `MABClusters`."""

    clusters: Annotated[int, msgspec.Meta(ge=2, le=1_000, description="How many, by k-means.")] = 8


class MABClusters(_Neighbourhood[ClustersParameters]):
    """By what was earned in contexts of the same cluster."""

    kind = "mab_clusters"
    parameters_model = ClustersParameters

    def _neighbourhood(self, X: FloatArray) -> Any:
        from mabwiser.mab import NeighborhoodPolicy  # noqa: PLC0415  # slow to import

        distinct = len(np.unique(X, axis=0))
        if distinct == 1:  # the library wants two clusters, and k-means two points for that
            return _nearest(len(X))
        return NeighborhoodPolicy.Clusters(min(self.parameters.clusters, distinct))


class TreeParameters(NeighbourhoodParameters, frozen=True):
    """Parameters of `MABTree`."""

    learning: Annotated[
        Literal["epsilon_greedy", "ucb1", "thompson"],
        msgspec.Meta(description="How it chooses by what was earned in like contexts."),
    ] = "epsilon_greedy"
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=50, description="Of an action's tree.")] = 6
    min_leaf: Annotated[
        int, msgspec.Meta(ge=1, le=100_000, description="Fewest decisions in a leaf.")
    ] = 10


class MABTree(_Neighbourhood[TreeParameters]):
    """By what an action earned in the leaf of its own regression tree."""

    kind = "mab_tree"
    parameters_model = TreeParameters

    def _neighbourhood(self, X: FloatArray) -> Any:  # noqa: ARG002
        from mabwiser.mab import NeighborhoodPolicy  # noqa: PLC0415  # slow to import

        given = self.parameters
        # A dict of its own: the library writes its seed into the one that it is given.
        tree = {"max_depth": given.max_depth, "min_samples_leaf": given.min_leaf}
        return NeighborhoodPolicy.TreeBandit(tree)
