"""Everything that touches a facility: sources, sinks. Found by entry points."""
