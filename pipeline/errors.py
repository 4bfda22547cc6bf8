"""The one error that a user of the chain is shown."""


class PipelineError(ValueError):
    """Something the user can put right; the text is one line that names the file or field."""
