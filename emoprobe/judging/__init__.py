"""Judges of what was said: the rubric as data, and the offline lexical judge."""
