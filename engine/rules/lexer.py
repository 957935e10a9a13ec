"""Splits the text of a rule into tokens, as CEL's lexis has them.

References: CEL language definition, github.com/google/cel-spec, doc/langdef.md, "Syntax" and
"String and Bytes Values".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from engine.errors import RuleError
from engine.rules.values import INT_MAX

_TOKEN: Final = re.compile(
    r"""
      (?P<skip>   (?: [\t\n\f\r ]+ | //[^\r\n]* )+ )
    | (?P<string> [rR] (?: \"\"\" .*? \"\"\" | ''' .*? ''' | "[^"\r\n]*" | '[^'\r\n]*' )
                |      \"\"\" (?: \\. | [^\\] )*? \"\"\"
                |      '''    (?: \\. | [^\\] )*? '''
                |      " (?: \\. | [^"\\\r\n] )* "
                |      ' (?: \\. | [^'\\\r\n] )* ' )
    | (?P<float>  (?: [0-9]*\.[0-9]+ (?:[eE][+-]?[0-9]+)? | [0-9]+[eE][+-]?[0-9]+ )
                  (?![A-Za-z0-9_.]) )
    | (?P<int>    (?: 0x[0-9a-fA-F]+ | [0-9]+ ) (?![A-Za-z0-9_.]) )
    | (?P<name>   [A-Za-z_][A-Za-z0-9_]* )
    | (?P<symbol> && | \|\| | == | != | <= | >= | [<>!()\[\],.-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(
    r"""\\(?: (?P<mark>  [abfnrtv\\?"'`] )
            | [xX](?P<hex2> [0-9a-fA-F]{2} )
            | u(?P<hex4> [0-9a-fA-F]{4} )
            | U(?P<hex8> [0-9a-fA-F]{8} )
            | (?P<octal> [0-3][0-7]{2} )
            | (?P<bad>   .? ) )""",
    re.VERBOSE | re.DOTALL,
)
_MARKS: Final = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text: ``text[start:end]``.

    ``type`` is "string", "number", "name", "symbol" or "end"; ``value`` is the string or number
    that it denotes, otherwise its source.
    """

    type: str
    value: str | int | float
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The tokens of ``text``, closed by one of type "end".

    Raises
    ------
    RuleError
        At the first character that begins no token, and at literals that denote no value.
    """
    found = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise RuleError(_cannot_read(text, position), position)
        kind = str(match.lastgroup)
        if kind != "skip":
            value = _value(kind, match.group(), position)
            kind = "number" if kind in {"int", "float"} else kind
            found.append(Token(kind, value, position, match.end()))
        position = match.end()
    found.append(Token("end", "the end of the rule", len(text), len(text)))
    return found


def _cannot_read(text: str, position: int) -> str:
    character = text[position]
    if character in "\"'":
        return (
            f"the string that begins at character {position} is not closed: end it with {character}"
        )
    if character in "&|=":
        return (
            f'"{character}" at character {position} is no operator: '
            'write "&&" for and, "||" for or, "==" for equality'
        )
    if character.isdigit():
        number = re.compile(r"[\w.]+").match(text, position)
        shown = number.group() if number else character
        return f'"{shown}" at character {position} is no number: write 12, 0x1F, 1.5 or 1e3'
    return f"{character!r} at character {position} is not part of the rule language: remove it"


def _value(kind: str, source: str, position: int) -> str | int | float:
    if kind == "int":
        integer = int(source, 16 if source.startswith("0x") else 10)
        # -9223372036854775808 is written with the magnitude one above the largest integer.
        if integer > INT_MAX + 1:
            raise RuleError(
                f"{source} at character {position} does not fit 64 bits: "
                f"write it as a number with a decimal point",
                position,
            )
        return integer
    if kind == "float":
        number = float(source)
        if math.isinf(number):
            raise RuleError(
                f"{source} at character {position} is too large: the largest number is 1.8e308",
                position,
            )
        return number
    if kind == "string":
        return _string(source, position)
    return source


def _string(source: str, position: int) -> str:
    raw = source[0] in "rR"
    quoted = source[1:] if raw else source
    width = 3 if quoted[:3] in {'"""', "'''"} and len(quoted) >= 6 else 1
    body = quoted[width:-width]
    if not raw:
        offset = position + width
        body = _ESCAPE.sub(lambda match: _unescape(match, offset), body)
    if any("\ud800" <= character <= "\udfff" for character in body):
        raise RuleError(
            f"the string at character {position} holds half of a surrogate pair: "
            r"write the character itself or its \U escape",
            position,
        )
    return body


def _unescape(match: re.Match[str], offset: int) -> str:
    if match["mark"]:
        return _MARKS.get(match["mark"], match["mark"])
    digits = match["hex2"] or match["hex4"] or match["hex8"]
    code = int(digits, 16) if digits else int(match["octal"], 8) if match["octal"] else None
    if code is None or code > 0x10FFFF:
        position = offset + match.start()
        raise RuleError(
            f"{match.group()} at character {position} is no escape sequence: "
            r"write \\ for a backslash, or one of \n \t \" \' \x41 \u0041 \U00000041 \101",
            position,
        )
    return chr(code)
