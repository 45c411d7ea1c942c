"""How a shop's table is written, where the file itself does not say: the options of every command that reads one."""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from feature_repo.arrow import timestamp_texts
from feature_repo.errors import UsageError

_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class TableFormat:
    """What a command line says about the tables that it names. Everything left out is found in the file."""

    encoding: str | None = None
    """Encoding of a CSV, a name that Python knows (`gbk`, `utf-16`, `cp1252`). None: UTF-8, or as the file's byte order
    mark says."""
    delimiter: str | None = None
    """The one character between two fields of a CSV. None: as the header shows."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The file's name of a column to the name of it here. Other columns keep their names."""
    timezone: str | None = None
    """The time zone of timestamps that have none. None refuses these."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: the encoding or the time zone is not known, or the delimiter is not one character.
        """
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise UsageError(
                    f"--encoding {self.encoding!r} is not known; write it as utf-8, gbk, big5, utf-16 or cp1252"
                ) from error
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or self.delimiter in '"\r\n' or not self.delimiter.isascii()
        ):
            raise UsageError(f"--delimiter {self.delimiter!r} is not one character; write it as ',' ';' '|' or tab")
        if self.timezone is not None:
            timestamp_texts.check_timezone(self.timezone)

    @classmethod
    def from_options(
        cls,
        encoding: str | None = None,
        delimiter: str | None = None,
        columns: Sequence[str] | None = None,
        timezone: str | None = None,
    ) -> "TableFormat":
        """Return the format that options of a command line describe.

        Args:
            encoding: as the attribute.
            delimiter: one character, or its name: `tab`, `comma`, `semicolon`, `pipe`, `space`.
            columns: texts `THEIRS=OURS`; what follows the last `=` is our name.
            timezone: as the attribute.

        Raises:
            UsageError: a value is not valid.
        """
        renamed: dict[str, str] = {}
        for text in columns or ():
            theirs, _, ours = (part.strip() for part in text.rpartition("="))
            if not theirs or not ours or ("," in text and text.count("=") > 1):
                raise UsageError(f"--columns {text!r} is not THEIRS=OURS; give the option once for each column")
            if theirs in renamed or ours in renamed.values():
                raise UsageError(f"--columns {text!r}: one of the two columns is named twice")
            renamed[theirs] = ours
        delimiter = delimiter if delimiter is None else _DELIMITER_NAMES.get(delimiter.lower(), delimiter)
        return cls(encoding, delimiter, renamed, timezone)

    def to_options(self) -> list[str]:
        """Return the arguments of a command line that `from_options` would read as this format."""
        options = {"encoding": self.encoding, "delimiter": self.delimiter, "timezone": self.timezone}
        arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
        return [*arguments, *(f"--columns={theirs}={ours}" for theirs, ours in self.columns.items())]

    def rename(self, names: Sequence[str]) -> list[str]:
        """Return our names of a file's columns, in their order, without white space at both ends."""
        return [self.columns.get(name.strip(), name.strip()) for name in names]


DEFAULT_FORMAT = TableFormat()
"""Everything is found in the file."""
