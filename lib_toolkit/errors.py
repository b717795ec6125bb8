"""The exceptions that leave this package.

Every message is one sentence for a person: what happened, which file, and what to do next.
"""

from __future__ import annotations


class ToolkitError(Exception):
    """Base of all errors that a user may see; ``str(error)`` is the sentence to show."""


class FormatError(ToolkitError):
    """The file is not a model that can be read: damaged, incomplete, or something else entirely."""


class IncompleteError(FormatError):
    """The file ends before what it should hold does: it was cut off, or more of it is still to come."""


class UnreadableError(FormatError):
    """The system would not open or read the file now, which says nothing of what it holds: that may be sound."""


class UnsafeFileError(FormatError):
    """The file tries to run programs or import code; nothing of it was run."""


class UsageError(ToolkitError):
    """What was asked for makes no sense: an unknown option value, a name that cannot be used."""


class TargetError(ToolkitError):
    """The result cannot be written where it was asked for; nothing was changed on disk."""


class TakenError(TargetError):
    """Something of this name exists already; only some callers can offer to replace it."""


class VerificationError(ToolkitError):
    """What was written does not read back as it should; the result was removed."""


class CancelledError(ToolkitError):
    """The user stopped the work; nothing was left behind."""
