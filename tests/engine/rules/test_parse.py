"""What `parse` reads and what it refuses, saying where and how to mend it."""

from __future__ import annotations

import pytest

from engine.errors import RuleError
from engine.rules import ATTRIBUTE_TYPES, parse

TYPES = {
    "weeks": "integer",
    "country": "string",
    "churn_risk": "number",
    "loyal": "boolean",
    "joined": "timestamp",
    "tags": "list",
    "action.depth": "integer",
}


def test_a_rule_knows_its_clauses_in_source_order_and_the_attributes_it_reads() -> None:
    rule = parse('(weeks) >= 1 && !(loyal || country in ["DE", "FR"]) && has(churn_risk)', TYPES)
    assert rule.clauses == (
        "(weeks) >= 1",
        "loyal",
        'country in ["DE", "FR"]',
        "has(churn_risk)",
    )
    assert rule.attributes == {"weeks", "loyal", "country", "churn_risk"}


def test_a_rule_reads_the_action_only_if_it_names_a_feature_of_it() -> None:
    assert parse("action.depth <= weeks", TYPES).reads_action
    assert not parse("weeks >= 1", TYPES).reads_action
    assert not parse("actions == 1").reads_action


def test_the_same_text_gives_equal_rules() -> None:
    assert parse("weeks >= 1") == parse("weeks >= 1")
    assert hash(parse("weeks >= 1")) == hash(parse("weeks >= 1"))


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "write an attribute, a literal or a parenthesis"),
        ("weeks >=", 8, "stands the end of the rule"),
        ("weeks >= 1 loyal", 11, 'write "&&", "||" or the end of the rule'),
        ("(loyal", 6, '")" to close the parenthesis at character 0'),
        ("loyal)", 5, 'write "&&", "||" or the end of the rule'),
        ("wekks >= 1", 0, 'did you mean "weeks"? Known: "action.depth"'),
        ("loyal && plan == 1", 9, '"plan" at character 9 is not a declared attribute'),
        ("has(plan)", 4, "not a declared attribute"),
        ('weeks >= "1"', 6, "compares `weeks` (a number) with a string, which never holds"),
        ('"1" == weeks', 4, "compares a string with `weeks` (a number)"),
        ("weeks == country", 6, "compares `weeks` (a number) with `country` (a string)"),
        ("joined > 5", 7, "compares `joined` (a timestamp) with a number"),
        ('"20" >= 18', 5, "compares a string with a number"),
        ("tags < tags", 5, "orders `tags` (a list), which has no order"),
        ("null < null", 5, "orders a null, which has no order"),
        ("country == null", 8, "write has(country) or !has(country)"),
        ("null != country", 5, "write has(country) or !has(country)"),
        ('country in ["DE", 7]', 18, "never equals the number at character 18"),
        ("weeks in tags", 6, "whose elements are strings"),
        ('country in "DE"', 8, "its right side is a list"),
        ("country in weeks", 8, "looks into `weeks` (a number)"),
        ("weeks", 0, "`weeks` (a number) at character 0 is no condition: compare it"),
        ("loyal && 1", 9, "a number at character 9 is no condition"),
        ("!country", 1, "is no condition"),
        ("!loyal == false", 7, "compares a condition"),
        ("(weeks > 1) == true", 12, "compares a condition"),
        ("1 < weeks < 3", 10, 'join the two with "&&"'),
        ("weeks in [1, weeks]", 13, "a list holds literals"),
        ("weeks in [1 2]", 12, '"," or "]"'),
        ("weeks in [[1]]", 10, "write an attribute, a literal"),
        ("-weeks < 1", 1, "rules have no arithmetic"),
        ("weeks + 1 > 2", 6, "'+' at character 6 is not part of the rule language"),
        ("weeks > 1 ? loyal : loyal", 10, "not part of the rule language"),
        ("tags[0] == 'a'", 4, "stands ["),
        ("size(tags) > 1", 0, "the only functions are has(…) and timestamp(…)"),
        ("has(weeks, loyal)", 9, "has takes one attribute"),
        ("has(1)", 4, "the name of an attribute"),
        ("has.x == 1", 0, "not a declared attribute"),
        ("if == 1", 0, "a word of the language"),
        ("a.true == 1", 2, "a word of the language"),
        ("a. == 1", 3, "the name of an attribute"),
        ("é == 1", 0, "'é' at character 0 is not part of the rule language"),
        ("loyal & loyal", 6, 'write "&&" for and'),
        ("weeks = 1", 6, '"==" for equality'),
        ("country == 'DE", 11, "is not closed: end it with '"),
        ("country == 'D\nE'", 11, "is not closed"),
        (r"country == '\z'", 12, r"\z at character 12 is no escape sequence"),
        (r"country == '\400'", 12, "no escape sequence"),
        (r"country == '\U00110000'", 12, "no escape sequence"),
        (r"country == '\ud83d\ude00'", 11, "surrogate"),
        ("country == '\ud83d'", 11, "surrogate"),
        ("weeks == 0X1F", 9, '"0X1F" at character 9 is no number'),
        ("weeks == 1u", 9, "is no number"),
        ("weeks == 1.", 9, '"1." at character 9 is no number'),
        ("weeks == 1.e5", 9, "is no number"),
        ("churn_risk < 1e400", 13, "the largest number is 1.8e308"),
        ("weeks < 9223372036854775808", 8, "write 9223372036854775808.0"),
        ("weeks < 99999999999999999999", 8, "does not fit 64 bits"),
        ("weeks < -9223372036854775809", 9, "does not fit 64 bits"),
        ("joined > timestamp('2026-01-01')", 19, 'as in timestamp("2026-01-31T00:00:00Z")'),
        ("joined > timestamp('2026-01-01T00:00:00')", 19, "a time with a zone"),
        ("joined > timestamp('2026-02-30T00:00:00Z')", 19, "a time with a zone"),
        ("joined > timestamp(5)", 19, "a time with a zone"),
    ],
)
def test_a_fault_says_where_it_is_and_how_to_mend_it(
    text: str, position: int, message: str
) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text, TYPES)
    assert message in str(caught.value)
    assert caught.value.position == position


def test_an_attribute_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(RuleError, match="Known: string, integer, number"):
        parse("x == 1", {"x": "int"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x == '" + "a" * 4_000 + "'", "at most 4000"),
        ("(" * 33 + "x" + ")" * 33, "nested more than 32 deep"),
        (" || ".join(["x"] * 65), "at most 64"),
        ("x in [" + ",".join(["1"] * 1_001) + "]", "more than 1000 elements"),
    ],
)
def test_a_rule_beyond_the_bounds_is_refused(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "x == '" + "a" * 3_993 + "'",
        "(" * 32 + "x" + ")" * 32,
        " || ".join(["x"] * 64),
        "x in [" + ",".join(["1"] * 1_000) + "]",
        "!" * 3_999 + "x",
    ],
)
def test_a_rule_at_the_bounds_is_read(text: str) -> None:
    assert parse(text).evaluate({"x": True}).clauses[0] in "TF"


def test_every_declared_type_can_be_compared() -> None:
    texts = {
        "string": 'x == "a"',
        "integer": "x == 1",
        "number": "x == 1.5",
        "boolean": "x",
        "timestamp": 'x > timestamp("2026-01-31T00:00:00Z")',
        "list": '"a" in x',
    }
    assert texts.keys() == ATTRIBUTE_TYPES.keys()
    for type_name, text in texts.items():
        assert parse(text, {"x": type_name}).attributes == {"x"}
