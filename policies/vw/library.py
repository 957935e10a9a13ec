"""Vowpal Wabbit itself: text in, its numbers out, its model as bytes; nothing else imports it.

The library's own Python layer makes and checks an object for every line of an example, which takes
several times as long as parsing, predicting and tidying up together. `Model` calls the compiled
methods below that layer: it is a fraction of ``Workspace.predict`` on the same text.

The library holds the interpreter's lock and a workspace is not thread-safe: use a model from one
thread at a time. Each text is parsed anew for each call, since predicting a parsed example twice
leaks.
"""

import functools
import re
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.errors import PolicyError

if TYPE_CHECKING:
    from vowpalwabbit import Workspace

_HEADERS = 64  # sets of options, far more than one workspace declares


class Reduction(NamedTuple):
    """What a model is of: the library's options, and an example that it can predict."""

    options: tuple[str, ...]
    probe: str


class Density(NamedTuple):
    """A piece of a density: constant between ``low`` and ``high``."""

    low: float
    high: float
    density: float


class Model:
    """A workspace of the library, new or from `saved` bytes.

    Raises
    ------
    PolicyError
        If ``saved`` holds no model, or one that was made with other options.
    """

    def __init__(self, reduction: Reduction, saved: bytes | None = None) -> None:
        self._reduction = reduction
        if saved is None:
            self._workspace = _start(reduction.options)
        else:
            self._workspace = _load(reduction, saved)
        native: Any = super(type(self._workspace), self._workspace)
        self._parse = native._parse  # noqa: SLF001  # what the library's own layer calls
        if native._is_multiline():  # noqa: SLF001  # as above
            self._predict, self._learn = native.predict_multi, native.learn_multi
            self._finish = native._finish_example_multi_ex  # noqa: SLF001  # as above
        else:
            self._predict = lambda examples: native.predict(examples[0])
            self._learn = lambda examples: native.learn(examples[0])
            self._finish = lambda examples: native._finish_example(examples[0])  # noqa: SLF001  # as above

    def action_scores(self, text: str) -> list[float]:
        """The probability of each action line of an example, in float32's precision."""
        examples = self._parse(text)
        try:
            self._predict(examples)
            scores: list[float] = examples[0].get_action_scores()
        finally:
            self._finish(examples)
        return scores

    def density(self, text: str) -> list[Density]:
        """The density over a range, piece by piece from its low end, in float32's precision."""
        examples = self._parse(text)
        try:
            self._predict(examples)
            pieces = [Density(*piece) for piece in examples[0].get_pdf()]
        finally:
            self._finish(examples)
        return pieces

    def learn(self, text: str) -> None:
        """Learn from a labelled example."""
        examples = self._parse(text)
        try:
            self._learn(examples)
        finally:
            self._finish(examples)

    def saved(self) -> bytes:
        """The model's bytes, which change by learning alone."""
        return _without_counters(_save(self._workspace), self._reduction)


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


def _load(reduction: Reduction, model: bytes) -> "Workspace":
    # VW reads its options from the model, and damaged ones without complaint: the part that
    # holds them must be what these parameters write.
    start = _header(reduction)
    if _options_in(model, start) != _options_in(start.bytes, start):
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
_LENGTH = struct.Struct("<I")


# A model that has drawn at random while it learned has its generator's state behind its options.
_RANDOM_STATE = re.compile(rb" --random_seed [0-9]+(?=\0)")


class _Header(NamedTuple):
    """What a model without weights looks like: where its options, with their length, begin, where
    they end, and where the counters begin.
    """

    bytes: bytes
    options: int
    end: int
    counters: int


@functools.lru_cache(maxsize=_HEADERS)
def _header(reduction: Reduction) -> _Header:
    """The header that these options write, checked to be laid out as expected.

    Raises
    ------
    PolicyError
        If this version of Vowpal Wabbit lays out its models in another way.
    """
    workspace = _start(reduction.options)
    fresh = _save(workspace)
    workspace.predict(reduction.probe)
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
    return _Header(fresh, text - _LENGTH.size, fresh.index(b"\0", text) + 1, counters)


def _end_of_options(model: bytes, start: _Header) -> int:
    if len(model) < start.end:
        return 0
    (length,) = _LENGTH.unpack_from(model, start.options)
    return start.options + _LENGTH.size + int(length)


def _options_in(model: bytes, start: _Header) -> bytes:
    text = model[start.options + _LENGTH.size : _end_of_options(model, start)]
    return _RANDOM_STATE.sub(b"", text)


def _without_counters(model: bytes, reduction: Reduction) -> bytes:
    start = _header(reduction)
    counters = start.counters + _end_of_options(model, start) - start.end
    values = list(_COUNTERS.unpack_from(model, counters))
    zeroed = [0.0, 0.0, 0.0, 0.0, values[4], values[5], 0.0, 0.0, 0.0, 0, 0]
    return model[:counters] + _COUNTERS.pack(*zeroed) + model[counters + _COUNTERS.size :]
