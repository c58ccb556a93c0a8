"""The room of `track`: its plan, what it collects, and what it makes of it (curves, effects, agreement)."""
