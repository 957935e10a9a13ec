"""Reads the text of a rule into its clause tree, and refuses what could never hold.

    rule      = or
    or        = and { "||" and }
    and       = relation { "&&" relation }
    relation  = unary [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" ) unary ]
    unary     = { "!" } primary
    primary   = "(" or ")" | "[" [ literal { "," literal } [ "," ] ] "]" | literal | path
              | "has" "(" path ")" | "timestamp" "(" string ")"
    path      = name { "." name }

Precedence is CEL's. Left out of CEL on purpose: arithmetic, functions, indexing, maps, the
conditional operator, macros other than ``has``, chained relations and conditions as operands of a
comparison.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from engine.errors import RuleError
from engine.rules.checks import check_comparison, check_condition, check_member
from engine.rules.lexer import Token, tokens
from engine.rules.tree import (
    And,
    Compare,
    Has,
    ListLiteral,
    Literal,
    Member,
    Node,
    Not,
    Operand,
    Or,
    Path,
    Scalar,
    Truth,
)
from engine.rules.values import ATTRIBUTE_TYPES, INT_MAX, Kind, timestamp

MAX_CHARACTERS: Final = 4_000
MAX_NESTING: Final = 32
MAX_CLAUSES: Final = 64
MAX_LIST: Final = 1_000

_RELATIONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in")
_CONSTANTS: Final[dict[str, tuple[Scalar, Kind]]] = {
    "true": (True, Kind.BOOLEAN),
    "false": (False, Kind.BOOLEAN),
    "null": (None, Kind.NULL),
}
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)


def parse_tree(
    text: str, types: Mapping[str, str] | None
) -> tuple[Node, tuple[str, ...], frozenset[str]]:
    """The clause tree of ``text``, the source of each clause in order, the attributes it reads.

    ``types`` and the faults are those of ``engine.rules.parse``.
    """
    if len(text) > MAX_CHARACTERS:
        raise RuleError(
            f"a rule of {len(text)} characters is too long: at most {MAX_CHARACTERS}, "
            "so split it into several rules",
            MAX_CHARACTERS,
        )
    parser = _Parser(text, types)
    return parser.rule(), tuple(parser.clauses), frozenset(parser.paths)


class _Parser:
    """One pass over the tokens of one rule, by recursive descent."""

    def __init__(self, text: str, types: Mapping[str, str] | None) -> None:
        self.text = text
        self.types = types
        self.tokens = tokens(text)
        self.at = 0
        self.depth = 0
        self.clauses: list[str] = []
        self.paths: set[str] = set()

    def rule(self) -> Node:
        parsed = self._or()
        if self._here.type != "end":
            raise self._unexpected('"&&", "||" or the end of the rule')
        return self._condition(parsed)

    # The grammar, loosest operator first.

    def _or(self) -> Node | Operand:
        first = self._and()
        if not self._is("||"):
            return first
        nodes = [self._condition(first)]
        while self._take("||"):
            nodes.append(self._condition(self._and()))
        return Or(tuple(nodes))

    def _and(self) -> Node | Operand:
        first = self._relation()
        if not self._is("&&"):
            return first
        nodes = [self._condition(first)]
        while self._take("&&"):
            nodes.append(self._condition(self._relation()))
        return And(tuple(nodes))

    def _relation(self) -> Node | Operand:
        start = self._here.start
        left = self._unary()
        if not self._is(*_RELATIONS):
            return left
        sign = self._next()
        right = self._unary()
        if self._is(*_RELATIONS):
            raise RuleError(
                f'"{self._here.value}" at character {self._here.start} follows another '
                'comparison: join the two with "&&"',
                self._here.start,
            )
        if not isinstance(left, Operand) or not isinstance(right, Operand):
            raise RuleError(
                f'"{sign.value}" at character {sign.start} compares a condition, and only '
                'attributes and literals can be compared: write the condition itself, or "!" and '
                "the condition in parentheses",
                sign.start,
            )
        if sign.value == "in":
            if self.types is not None:
                check_member(left, right, sign.start)
            return Member(self._number_clause(start), left, right)
        if self.types is not None:
            check_comparison(str(sign.value), left, right, sign.start)
        return Compare(self._number_clause(start), str(sign.value), left, right)

    def _unary(self) -> Node | Operand:
        signs = 0
        while self._take("!"):
            signs += 1
        node = self._primary()
        if not signs:
            return node
        condition = self._condition(node)
        # Two negations cancel, in three-valued logic too.
        return Not(condition) if signs % 2 else condition

    def _primary(self) -> Node | Operand:
        token = self._here
        if self._take("("):
            return self._parenthesised(token)
        if self._is("["):
            return self._list()
        following = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        called = following.type == "symbol" and following.value == "("
        if called and self._is("has"):
            return self._has()
        if token.type == "name" and token.value not in _CONSTANTS and not called:
            return self._path()
        return self._literal()

    def _parenthesised(self, opening: Token) -> Node | Operand:
        if self.depth == MAX_NESTING:
            raise RuleError(
                f"the parenthesis at character {opening.start} is nested more than {MAX_NESTING} "
                "deep: split the rule",
                opening.start,
            )
        self.depth += 1
        inner = self._or()
        self.depth -= 1
        self._expect(")", f'")" to close the parenthesis at character {opening.start}')
        return inner

    # The leaves.

    def _has(self) -> Node:
        start = self._next().start
        self._expect("(", '"("')
        path = self._path()
        self._expect(")", '")", since has takes one attribute')
        return Has(self._number_clause(start), path)

    def _path(self) -> Path:
        first = self._here
        names = [self._name(_RESERVED | _CONSTANTS.keys())]
        while self._take("."):
            names.append(self._name(_CONSTANTS.keys() | {"in"}))
        name = ".".join(names)
        self.paths.add(name)
        end = self.tokens[self.at - 1].end
        return Path(name, self._declared_kind(name, first.start), first.start, end)

    def _name(self, reserved: AbstractSet[str]) -> str:
        token = self._here
        if token.type != "name":
            raise self._unexpected("the name of an attribute")
        if token.value in reserved:
            raise RuleError(
                f'"{token.value}" at character {token.start} is a word of the language and names '
                "no attribute: rename the attribute",
                token.start,
            )
        return str(self._next().value)

    def _list(self) -> ListLiteral:
        opening = self._next()
        elements: list[Literal] = []
        while not self._is("]"):
            elements.append(self._literal())
            if len(elements) > MAX_LIST:
                raise RuleError(
                    f"the list at character {opening.start} has more than {MAX_LIST} elements: "
                    "use a list attribute instead",
                    opening.start,
                )
            if not self._take(","):
                break
        end = self._expect("]", '"," or "]"').end
        return ListLiteral(tuple(elements), opening.start, end)

    def _literal(self) -> Literal:
        token = self._here
        if token.type == "number" or self._is("-"):
            return self._number()
        if token.type == "string":
            self._next()
            return Literal(str(token.value), Kind.STRING, token.start, token.end)
        if token.type == "name" and token.value in _CONSTANTS:
            self._next()
            value, kind = _CONSTANTS[str(token.value)]
            return Literal(value, kind, token.start, token.end)
        if self._is("timestamp"):
            return self._timestamp()
        if token.type == "name":
            raise RuleError(
                f'"{token.value}" at character {token.start} cannot stand here: a list holds '
                "literals, and the only functions are has(…) and timestamp(…)",
                token.start,
            )
        raise self._unexpected("an attribute, a literal or a parenthesis")

    def _number(self) -> Literal:
        start = self._here.start
        negative = self._take("-")
        token = self._here
        value = token.value
        if isinstance(value, str):
            raise self._unexpected('a number after "-", since rules have no arithmetic')
        if type(value) is int and value > INT_MAX and not negative:
            raise RuleError(
                f"{value} at character {start} does not fit 64 bits: write {value}.0", start
            )
        self._next()
        return Literal(-value if negative else value, Kind.NUMBER, start, token.end)

    def _timestamp(self) -> Literal:
        start = self._next().start
        self._expect("(", '"(" after timestamp')
        token = self._next()
        instant = timestamp(str(token.value)) if token.type == "string" else None
        if instant is None:
            raise RuleError(
                f"timestamp at character {start} takes a time with a zone in quotes, "
                'as in timestamp("2026-01-31T00:00:00Z")',
                token.start,
            )
        end = self._expect(")", '")" after the time').end
        return Literal(instant, Kind.TIMESTAMP, start, end)

    # What the grammar rests on.

    def _condition(self, parsed: Node | Operand) -> Node:
        """``parsed`` as a condition: an operand becomes a clause of its own."""
        if not isinstance(parsed, Operand):
            return parsed
        if self.types is not None:
            check_condition(parsed)
        return Truth(self._number_clause(parsed.start, parsed.end), parsed)

    def _number_clause(self, start: int, end: int | None = None) -> int:
        """The index of a new clause, whose source ends where the last token did, or at ``end``."""
        if len(self.clauses) == MAX_CLAUSES:
            raise RuleError(
                f"the clause at character {start} is one too many: at most {MAX_CLAUSES}, "
                'so split the rule, or use "in" with a list',
                start,
            )
        self.clauses.append(self.text[start : self.tokens[self.at - 1].end if end is None else end])
        return len(self.clauses) - 1

    def _declared_kind(self, name: str, position: int) -> Kind | None:
        if self.types is None:
            return None
        declared = self.types.get(name)
        if declared is None:
            near = difflib.get_close_matches(name, self.types, n=1)
            hint = f'did you mean "{near[0]}"? ' if near else ""
            known = ", ".join(f'"{known}"' for known in sorted(self.types)) or "none"
            raise RuleError(
                f'"{name}" at character {position} is not a declared attribute: {hint}'
                f"Known: {known}. Mend the name or declare it.",
                position,
            )
        if declared not in ATTRIBUTE_TYPES:
            raise RuleError(
                f'"{name}" at character {position} is declared as "{declared}", which is no type. '
                f"Known: {', '.join(ATTRIBUTE_TYPES)}.",
                position,
            )
        return ATTRIBUTE_TYPES[declared]

    @property
    def _here(self) -> Token:
        return self.tokens[self.at]

    def _next(self) -> Token:
        token = self.tokens[self.at]
        if token.type != "end":
            self.at += 1
        return token

    def _is(self, *sources: str) -> bool:
        token = self.tokens[self.at]
        return token.type in {"symbol", "name"} and token.value in sources

    def _take(self, source: str) -> bool:
        found = self._is(source)
        if found:
            self._next()
        return found

    def _expect(self, source: str, wanted: str) -> Token:
        if not self._is(source):
            raise self._unexpected(wanted)
        return self._next()

    def _unexpected(self, wanted: str) -> RuleError:
        token = self._here
        shown = self.text[token.start : token.end] or "the end of the rule"
        return RuleError(f"at character {token.start} stands {shown}: write {wanted}", token.start)
