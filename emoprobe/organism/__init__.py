"""The model organism: a small genuine Gemma 3 trained here, that really escalates, with known ground truth.

It proves the pipeline. It is never evidence about Gemma.
"""
