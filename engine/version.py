"""The version of this code, as every record and the command line report it."""

__version__ = "0.1.0"
