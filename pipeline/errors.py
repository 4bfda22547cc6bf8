"""The one error that a user of the chain is shown, and errors as one line."""

LONGEST = 4000  # characters: room in a pipe (64 KiB), however much a peer or a library says


class PipelineError(ValueError):
    """Something the user can put right; the text is one line that names the file or field."""


def one_line(error: BaseException) -> str:
    """Return what `error` says as one line of at most 4000 characters; its type if nothing."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__
