"""Judging recommenders by what users chose later than what they were trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from recsys import ranking_metrics as metrics
from recsys.bound import bind
from recsys.call import Call, Interaction, SlateKind
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue, Column, Mask, Rows
from recsys.content import Content
from recsys.errors import RecsysError
from recsys.interactions import Interactions
from recsys.retrieval import best
from recsys.settings import TrainSettings
from recsys.training import train

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
SplitKind = Literal["per_user", "time"]

BASELINE = "popularity"
"""The name of the items that most users chose, which every recommender is compared with."""

LEAST_INTERACTIONS = 5


@dataclass(frozen=True)
class Split:
    """What to train on, and what users chose after it.

    Users of `held_out` need not be in `training`.
    """

    kind: SplitKind
    training: Interactions
    held_out: Interactions


def per_user_split(interactions: Interactions, share: float = 0.2) -> Split:
    """Each user's last ⌈share⌉ choices held out, by time and then by item id.

    Only users with five choices or more take part. Other users' later choices are trained on, which
    nobody could have known at the time: see `time_split`.

    Raises
    ------
    RecsysError
        If no user has so many, or the share is not within (0, 1).
    """
    _check_share(share)
    table = interactions.last_of_pairs()
    counts = np.bincount(table.user, minlength=len(table.user_ids))
    enough = counts >= LEAST_INTERACTIONS
    if not enough.any():
        raise RecsysError(
            f"no user of {len(counts)} has {LEAST_INTERACTIONS} interactions that count. Give more."
        )
    order = np.lexsort((table.item, table.at, table.user))
    starts = np.cumsum(counts) - counts
    place = np.empty(len(table), np.int64)
    place[order] = np.arange(len(table)) - starts[table.user[order]]
    held = np.array([math.ceil(round(share * count, 9)) for count in counts])
    last = place >= (counts - held)[table.user]
    taking_part = enough[table.user]
    return Split("per_user", table.take(taking_part & ~last), table.take(taking_part & last))


def time_split(interactions: Interactions, share: float = 0.2) -> Split:
    """The last share of all choices held out: what a model trained at one moment meets afterwards.

    What a user chose before is not held out again. Users without history take part.

    Raises
    ------
    RecsysError
        If nothing is left on one side, or the share is not within (0, 1).
    """
    _check_share(share)
    cut = int(np.quantile(interactions.at, 1.0 - share)) if len(interactions) else 0
    training = interactions.take(interactions.at <= cut).last_of_pairs()
    later = interactions.take(interactions.at > cut).last_of_pairs()
    pairs = {(training.user_ids[u], training.item_ids[i]) for u, i in _pairs(training)}
    new = [(later.user_ids[u], later.item_ids[i]) not in pairs for u, i in _pairs(later)]
    held_out = later.take(np.array(new, np.bool_))
    if len(held_out) == 0:
        raise RecsysError(
            f"all {len(interactions)} interactions lie before the cut, or repeat what does. Give "
            "interactions over a longer time."
        )
    return Split("time", training, held_out)


def _pairs(table: Interactions) -> list[tuple[int, int]]:
    return list(zip(table.user.tolist(), table.item.tolist(), strict=True))


def _check_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise RecsysError(f"share held out is {share!r}. Give a number between 0 and 1.")


class Figure(msgspec.Struct, frozen=True):
    """A metric's mean over users with its interval; coverage, which is no mean, has none."""

    metric: str
    value: float
    low: float | None
    high: float | None


class Evaluation(msgspec.Struct, frozen=True):
    """How one recommender did on one split."""

    name: str
    split: SplitKind
    users: int
    k: int
    figures: tuple[Figure, ...]

    def __getitem__(self, metric: str) -> Figure:
        return next(figure for figure in self.figures if figure.metric == metric)


class MostChosen:
    """The baseline: the items that most users chose in training, for everybody alike."""

    def __init__(self, training: Interactions, catalogue: Catalogue) -> None:
        rows = catalogue.rows(training.item_ids)
        counts = np.bincount(training.item, minlength=len(rows))
        self._counts = np.zeros(catalogue.size)
        self._counts[rows[rows >= 0]] = counts[rows >= 0]

    def candidates(
        self,
        call: Call,  # noqa: ARG002  the same for everybody
        catalogue: Catalogue,
        kind: SlateKind,  # noqa: ARG002
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """See `CandidateSource`."""
        rows = np.arange(catalogue.size) if allowed is None else np.flatnonzero(allowed)
        rows, scores = best(rows, self._counts[rows], count)
        nothing = np.full(len(rows), -1, np.intp)
        return Candidates(rows, scores, np.zeros(len(rows), np.int8), nothing, (BASELINE,))


def compare(
    catalogue: Catalogue,
    split: Split,
    settings: Mapping[str, TrainSettings],
    *,
    k: int = 10,
    category: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> list[Evaluation]:
    """The baseline and a model by each of the settings, trained and judged on one split.

    Raises
    ------
    RecsysError
        As `evaluate` and `train`.
    """
    sources: dict[str, CandidateSource] = {BASELINE: MostChosen(split.training, catalogue)}
    for name, each in settings.items():
        sources[name] = bind(train(catalogue, split.training, each), catalogue)
    return [
        evaluate(
            name, source, catalogue, split, k=k, category=category, draws=draws, seed=seed,
            alpha=alpha,
        )
        for name, source in sources.items()
    ]  # fmt: skip


def evaluate(
    name: str,
    source: CandidateSource,
    catalogue: Catalogue,
    split: Split,
    *,
    k: int = 10,
    category: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> Evaluation:
    """Ask for each user's list as of the first held-out choice, and hold it against them all.

    Candidates are the items of the training that the user has not chosen in it. A held-out item
    that is none of them is a miss.

    Parameters
    ----------
    category
        The attribute whose mix miscalibration is of; None: the one with the role category, if any.
    draws, seed, alpha
        Of the bootstrap over users: percentile intervals at 1 − alpha.

    Raises
    ------
    RecsysError
        If k is below 1, or the catalogue has no item of the training.
    """
    if k < 1:
        raise RecsysError(f"k is {k}. Give 1 or more.")
    asked = _Questions(catalogue, split)
    lists = asked.lists(source, k)
    hits, relevant = asked.hits(lists), asked.relevant
    by_user: dict[str, Numbers] = {
        "ndcg": metrics.ndcg(hits, relevant),
        "recall": metrics.recall(hits, relevant),
        "map": metrics.average_precision(hits, relevant),
        "hit_rate": metrics.hit_rate(hits),
        "novelty": metrics.novelty(lists, asked.shares),
    }
    content = Content(catalogue)
    if content.says_something:
        by_user["diversity"] = metrics.intra_list_diversity(lists, content.similarities)
    column = catalogue.role("category") if category is None else catalogue.column(category)
    if column is not None:
        mixes = _mixes(column, asked.histories), _mixes(column, lists)
        away = metrics.miscalibration(*mixes)
        if not np.isnan(away).all():
            by_user["miscalibration"] = away[~np.isnan(away)]
    figures = [
        Figure(metric, float(values.mean()), *metrics.bootstrap(values, draws, seed, alpha))
        for metric, values in by_user.items()
    ]
    covered = metrics.coverage(lists, int(asked.trained.sum()))
    figures.append(Figure("coverage", covered, None, None))
    return Evaluation(name, split.kind, len(lists), k, tuple(figures))


class _Questions:
    """The users of a split, with what they chose before and after."""

    def __init__(self, catalogue: Catalogue, split: Split) -> None:
        self.catalogue = catalogue
        training, held_out = split.training, split.held_out
        trained = catalogue.rows(training.item_ids)
        if not (trained >= 0).any():
            raise RecsysError("the catalogue has no item of the training. Load the one it is of.")
        self.trained = np.zeros(catalogue.size, np.bool_)
        self.trained[trained[trained >= 0]] = True
        self.users = held_out.user_ids
        self.relevant = np.bincount(held_out.user, minlength=len(self.users))
        self._held = _by_user(held_out, len(self.users))
        self._held_rows = catalogue.rows(held_out.item_ids)[held_out.item]
        self._first = np.array([held_out.at[rows].min() for rows in self._held])
        before = _by_user(training, len(training.user_ids))
        number = {user_id: code for code, user_id in enumerate(training.user_ids)}
        none = np.zeros(0, np.intp)
        self._before = [before[number[u]] if u in number else none for u in self.users]
        self._training = training
        rows = trained[training.item]
        self.histories = _padded([rows[before][rows[before] >= 0] for before in self._before])
        chosen = np.bincount(training.item, minlength=len(trained))
        self.shares = np.full(catalogue.size, np.nan)
        self.shares[trained[trained >= 0]] = chosen[trained >= 0] / len(training.user_ids)

    def lists(self, source: CandidateSource, k: int) -> Rows:
        """(u, k), what each user is recommended."""
        found = []
        for user in range(len(self.users)):
            allowed = self.trained.copy()
            history = self.histories[user]
            allowed[history[history >= 0]] = False
            asked = source.candidates(self._call(user), self.catalogue, "for_you", allowed, k)
            found.append(asked.rows)
        return _padded(found, k)

    def _call(self, user: int) -> Call:
        table = self._training
        history = tuple(
            Interaction(
                table.item_ids[table.item[row]],
                table.kinds[table.kind[row]],
                int(table.at[row]),
                float(table.value[row]),
            )
            for row in self._before[user]
        )
        return Call(
            user_id=self.users[user],
            surface="evaluation",
            slate="for_you",
            k=1,
            now=int(self._first[user]),
            trace_id="evaluation",
            history=history,
        )

    def hits(self, lists: Rows) -> Mask:
        """(u, k), which items of the lists the users chose later."""
        return np.array(
            [
                np.isin(row, self._held_rows[held]) & (row >= 0)
                for row, held in zip(lists, self._held, strict=True)
            ]
        )


def _by_user(table: Interactions, users: int) -> list[Rows]:
    """The rows of each user, in order of time."""
    order = np.argsort(table.user, kind="stable")
    ends = np.cumsum(np.bincount(table.user, minlength=users))
    return np.split(order, ends[:-1])


def _padded(lists: Sequence[Rows], width: int | None = None) -> Rows:
    width = max((len(row) for row in lists), default=0) if width is None else width
    padded = np.full((len(lists), width), -1, np.intp)
    for user, row in enumerate(lists):
        padded[user, : len(row)] = row
    return padded


def _mixes(column: Column, lists: Rows) -> Numbers:
    """(u, c), how much of each category a list has; an item of several has a share of each."""
    width = max(1, len(column.categories))
    mixes = np.zeros((len(lists), width))
    for user, row in enumerate(lists):
        for item in row[row >= 0]:
            value = column.at(int(item))
            words = value if isinstance(value, tuple) else (value,)
            for word in words:
                if isinstance(word, str):
                    mixes[user, column.codes[word]] += 1.0 / len(words)
    return mixes
