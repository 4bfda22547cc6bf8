"""The one error of this package."""


class ModelError(ValueError):
    """Something the user can put right; the text is one line that names the file or field."""
