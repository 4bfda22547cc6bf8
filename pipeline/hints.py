"""What an unknown key of a configuration may have meant."""

from collections.abc import Set
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel


def meant(config: type[BaseModel], table: str, key: str) -> str:
    """Return a hint: the table that has `key`, or a key of `table` that is spelt nearly so."""
    tables = {name: _keys(field.annotation) for name, field in config.model_fields.items()}
    for other in tables:
        if key in tables[other]:
            return f"; it belongs in [{other}]"
    return near(key, tables[table])


def near(word: str, words: Set[str]) -> str:
    """Return a hint: the one of `words` that is spelt nearly as `word`; nothing if none is."""
    found = get_close_matches(word, sorted(words), 1)
    return f"; did you mean {found[0]}?" if found else ""


def _keys(annotation: Any) -> Set[str]:
    """Return the keys of a table by the type of its field, which may be one of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields.keys()
    return {key for part in get_args(annotation) for key in _keys(part)}
