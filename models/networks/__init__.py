"""One file per architecture; each is registered in `phasewatch.models.registry`."""
