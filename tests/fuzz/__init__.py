"""Asking a server whatever its OpenAPI document allows and forbids (``make fuzz``)."""
