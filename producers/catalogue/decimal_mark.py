"""The decimal mark of prices: an option of the command line, which therefore imports nothing that takes time."""

from enum import StrEnum


class DecimalMark(StrEnum):
    """The character between whole units and their fractions."""

    POINT = "point"
    COMMA = "comma"
