"""Directions that read emotions: their texts, estimators, units and honest evaluation."""
