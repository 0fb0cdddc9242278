"""What reading a checkpoint can find wrong with it.

FormatError
├── Damaged       not what was written: a hash, a size, a rule of the format does not hold
└── Unsupported   written by a newer version than this reader knows
"""


class FormatError(Exception):
    """`object_name` names the object at fault, like 'packs/09ab…', or is '' when only the caller knows it."""

    def __init__(self, message: str, object_name: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.object_name = object_name

    def __str__(self) -> str:
        return f"{self.object_name}: {self.message}" if self.object_name else self.message


class Damaged(FormatError):
    """The content is not whole."""


class Unsupported(FormatError):
    """A newer Portico wrote it: update this one."""
