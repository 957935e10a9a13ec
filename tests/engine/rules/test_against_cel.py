"""Rules mean what CEL says they mean, by the word of two engines that share no code with ours.

An engine's error counts as unknown. Where we deviate on purpose, or an engine does from the
specification, a test below names the case; the random ones leave out just those: NaN, integers
beside doubles above 2^53, and whole maps as values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import cel
import pytest
from cel_expr_python import cel as google_cel

from engine.rules import parse
from tests.engine.rules.random_rules import for_cel, random_attributes, random_rule

_RULES = 2_600
_CONTEXTS = 5
_SYMBOLS = {True: "T", False: "F"}

_GOOGLE = google_cel.NewEnv(variables=dict.fromkeys(("ctx", "x", "y"), google_cel.Type.DYN))


def _google(text: str) -> Callable[[dict[str, object]], str]:
    expression = _GOOGLE.compile(text, disable_check=True)

    def evaluate(data: dict[str, object]) -> str:
        value = expression.eval(data=data)
        return _SYMBOLS[value.plain_value()] if value.type().name() == "BOOL" else "U"

    return evaluate


def _rust(text: str) -> Callable[[dict[str, object]], str]:
    program = cel.compile(text)

    def evaluate(data: dict[str, object]) -> str:
        try:
            value = program.execute(data)
        except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
            return "U"
        return _SYMBOLS[value] if isinstance(value, bool) else "U"

    return evaluate


ENGINES = pytest.mark.parametrize("engine", [_google, _rust], ids=["google", "rust"])


def _ours(text: str, attributes: dict[str, object]) -> str:
    verdict = parse(text).evaluate(attributes).verdict
    return "U" if verdict is None else _SYMBOLS[verdict]


@ENGINES
def test_random_rules_agree_with_a_cel_engine(
    engine: Callable[[str], Callable[[dict[str, object]], str]],
) -> None:
    """13,000 pairs of a rule and attributes, with each verdict in at least a tenth of them."""
    random = Random(20_260_101)
    verdicts: Counter[str] = Counter()
    for _ in range(_RULES):
        source = random_rule(random)
        rule, reference = parse(source.ours), engine(source.cel)
        for _ in range(_CONTEXTS):
            attributes = random_attributes(random)
            verdict = rule.evaluate(attributes).verdict
            shown = "U" if verdict is None else _SYMBOLS[verdict]
            assert shown == reference(for_cel(attributes)), (source.ours, attributes)
            verdicts[shown] += 1
    assert min(verdicts[symbol] for symbol in "TFU") > 0.1 * _RULES * _CONTEXTS
    assert verdicts.total() >= 10_000


@ENGINES
@pytest.mark.parametrize(
    ("text", "attributes", "verdict"),
    [
        ("x >= 18", {"x": "20"}, "U"),
        ("x == 20", {"x": "20"}, "F"),
        ("x != 20", {"x": "20"}, "T"),
        ("x == true", {"x": 1}, "F"),
        ("x in [1]", {"x": True}, "F"),
        ("x == 1.0", {"x": 1}, "T"),
        ("x < 1.5", {"x": 1}, "T"),
        ("x < true", {"x": False}, "T"),
        ("x < null", {"x": None}, "U"),
        ("x == null", {"x": None}, "T"),
        ("x && false", {"x": 1}, "F"),
        ("x && true", {"x": 1}, "U"),
        ("y || true", {}, "T"),
        ("y == 1 && false", {}, "F"),
        ("1 in x", {"x": "1"}, "U"),
        ("1 in x", {"x": [1.0, "a", None]}, "T"),
        ("x == [1, 2.0]", {"x": [1.0, 2]}, "T"),
        ('"é" > "z"', {}, "T"),
        (r'"\U0001F600" > "\uFFFD"', {}, "T"),
        (r"x == r'\n'", {"x": "\\n"}, "T"),
        (
            r"x == '\a\b\f\n\r\t\v\\\?\"\'\`\x41\X41\101\u00e9'",
            {"x": "\a\b\f\n\r\t\v\\?\"'`AAAé"},
            "T",
        ),
        ("0x1F == 31 && 007 == 7 && .5 < 1 && -0x1 < 0 && 1e3 == 1000", {}, "T"),
        ("x == 1 // one\n && true", {"x": 1}, "T"),
        ("x in [1,]", {"x": 1}, "T"),
    ],
)
def test_what_is_easily_got_wrong_agrees_with_a_cel_engine(
    engine: Callable[[str], Callable[[dict[str, object]], str]],
    text: str,
    attributes: dict[str, object],
    verdict: str,
) -> None:
    assert _ours(text, attributes) == verdict
    assert engine(text)(attributes) == verdict


@ENGINES
def test_both_engines_round_integers_beside_doubles_where_we_compare_exactly(
    engine: Callable[[str], Callable[[dict[str, object]], str]],
) -> None:
    """The specification compares numbers on one line; the engines convert the integer to double."""
    big: dict[str, object] = {"x": 2**53 + 1, "y": 2.0**53}
    assert _ours("x > y", big) == "T"
    assert engine("x > y")(big) == "F"


@ENGINES
def test_we_call_nan_unknown_where_cel_calls_it_unequal_to_everything(
    engine: Callable[[str], Callable[[dict[str, object]], str]],
) -> None:
    """`nan != 1.0` is true in CEL, which would let a value that nobody has open a gate."""
    nan: dict[str, object] = {"x": float("nan")}
    assert _ours("x != 1.0", nan) == "U"
    assert engine("x != 1.0")(nan) == "T"


@pytest.mark.parametrize(
    "text",
    [
        "2026-W05-1T00:00:00Z",
        "20260101T000000Z",
        "2026-01-01T00:00Z",
        "2026-01-01T000000Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00+0000",
        "2026-01-01T00:00:00+00",
        "2026-01-01T00:00:00+00:00:30",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00",
        "2026-02-30T00:00:00Z",
    ],
)
def test_what_is_not_rfc_3339_is_no_time(text: str) -> None:
    """Google's engine is lenient about zones and Rust's about the space: each text fails in one."""
    later = 'x > timestamp("1999-01-01T00:00:00Z")'
    assert parse(later, {"x": "timestamp"}).evaluate({"x": text}).verdict is None
    cel_text = 'timestamp(x) > timestamp("1999-01-01T00:00:00Z")'
    assert "U" in (_google(cel_text)({"x": text}), _rust(cel_text)({"x": text}))


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789Z", "2026-01-01T09:30:00-09:30"]
)
def test_what_is_rfc_3339_is_a_time(text: str) -> None:
    later = 'x > timestamp("1999-01-01T00:00:00Z")'
    assert parse(later, {"x": "timestamp"}).evaluate({"x": text}).verdict is True
    assert _google('timestamp(x) > timestamp("1999-01-01T00:00:00Z")')({"x": text}) == "T"


@ENGINES
def test_we_call_nested_lists_unknown_where_cel_compares_them(
    engine: Callable[[str], Callable[[dict[str, object]], str]],
) -> None:
    """A list's elements are scalars here; one nested ten thousand deep costs no recursion."""
    nested: dict[str, object] = {"x": [[1]], "y": [[1]]}
    assert _ours("x == y", nested) == "U"
    assert engine("x == y")(nested) == "T"
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert _ours("x == y", {"x": deep, "y": [deep]}) == "U"


def test_the_two_engines_differ_on_ordering_nan() -> None:
    nan: dict[str, object] = {"x": float("nan")}
    assert (_google("x < 1.0")(nan), _rust("x < 1.0")(nan)) == ("F", "U")
    assert _ours("x < 1.0", nan) == "U"


@ENGINES
def test_we_call_a_whole_map_unknown_where_cel_looks_among_its_keys(
    engine: Callable[[str], Callable[[dict[str, object]], str]],
) -> None:
    maps: dict[str, object] = {"x": {"a": 1}}
    assert _ours('"a" in x', maps) == "U"
    assert engine('"a" in x')(maps) == "T"


def test_an_integer_beyond_64_bits_is_an_error_to_google_and_a_double_to_rust() -> None:
    """CEL has no such integer, so we follow Google's engine."""
    huge: dict[str, object] = {"x": 2**70}
    assert (_google("x > 1")(huge), _rust("x > 1")(huge)) == ("U", "T")
    assert _ours("x > 1", huge) == "U"


def test_a_declared_attribute_of_another_type_is_an_error_to_google_and_unknown_here() -> None:
    environment = google_cel.NewEnv(variables={"x": google_cel.Type.STRING})
    expression = environment.compile('x != "a"')
    for value in (1, 1.5, True, None, ["a"]):
        assert expression.eval(data={"x": value}).type().name() == "ERROR"
        assert parse('x != "a"', {"x": "string"}).evaluate({"x": value}).verdict is None
