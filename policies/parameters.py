"""How a policy kind declares its parameters, and how given ones are checked against that."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import msgspec

ActionId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Weights = Annotated[
    dict[ActionId, Annotated[float, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)
]

HalfLife = Annotated[
    Annotated[float, msgspec.Meta(ge=1, le=1e12)] | None,
    msgspec.Meta(
        description="After how many decisions a reward counts half; null never forgets.",
    ),
]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a kind's parameters: each field an `Annotated` type with bounds and a description."""


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """One parameter of a kind, for configuration checks and for the reference.

    ``type`` is a JSON Schema type or a choice such as ``"epsilon" | "squarecb"``; ``bounds``
    reads like ``≥ 0, ≤ 1`` and is empty where there are none; ``default`` is meaningless where
    ``required``.
    """

    name: str
    type: str
    required: bool
    default: object
    bounds: str
    doc: str


@dataclass(frozen=True, slots=True)
class ParameterFault:
    """Why a given parameter is refused; ``name`` is empty if the fault is of several together."""

    name: str
    value: object
    message: str


_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minItems": "items ≥",
    "maxItems": "items ≤",
    "minProperties": "entries ≥",
}


def describe(model: type[Parameters]) -> tuple[ParameterDescription, ...]:
    """A model's parameters, in the order declared."""
    (schema,), components = msgspec.json.schema_components([model], ref_template="{name}")
    own = components[schema["$ref"]]
    return tuple(
        ParameterDescription(
            name=name,
            type=_type(field),
            required=name in own.get("required", ()),
            default=field.get("default"),
            bounds=", ".join(
                f"{_BOUNDS[k]} {v:g}"
                for option in (field, *field.get("anyOf", ()))
                for k, v in option.items()
                if k in _BOUNDS
            ),
            doc=field.get("description", ""),
        )
        for name, field in own["properties"].items()
    )


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(f'"{choice}"' for choice in field["enum"])
    if "anyOf" in field:
        return " | ".join(_type(option) for option in field["anyOf"])
    if field.get("prefixItems"):
        return f"[{', '.join(_type(item) for item in field['prefixItems'])}]"
    if field.get("type") == "array":
        return f"array of {_type(field['items'])}"
    if field.get("type") == "object":
        return f"object of {_type(field['additionalProperties'])}"
    return str(field.get("type", field.get("$ref")))


def faults(model: type[Parameters], given: Mapping[str, object]) -> tuple[ParameterFault, ...]:
    """Everything wrong with the parameters given, all at once; empty if they can be used."""
    hints = get_type_hints(model, include_extras=True)
    found = [
        ParameterFault(name, value, f"is unknown. Known: {', '.join(hints) or 'none'}.")
        for name, value in given.items()
        if name not in hints
    ]
    found += [
        ParameterFault(described.name, None, "is missing; it has no default.")
        for described in describe(model)
        if described.required and described.name not in given
    ]
    for name, hint in hints.items():
        if name in given and (message := _refusal(given[name], hint)):
            found.append(ParameterFault(name, given[name], message))
    if not found and (message := _refusal(given, model)):
        found.append(ParameterFault("", given, message))
    return tuple(found)


def _refusal(value: object, hint: Any) -> str:
    if not _finite(value):
        return "is not finite. Give finite numbers."
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        return f"is refused: {error}"
    return ""


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_finite(v) for v in value.values())
    return not isinstance(value, list | tuple) or all(_finite(v) for v in value)
