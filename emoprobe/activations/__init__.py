"""What a hook keeps of a residual stream: means per span, scores per token, or the stream itself.

`slots.py` says which number of a result belongs to which turn and part (no torch), `reduce.py` reduces
inside the hook, `store.py` writes what was kept as safetensors shards with a parquet index.
"""
