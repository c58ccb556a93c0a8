"""Many conversations at once, each token forwarded once; and the same token ids forwarded again.

`plan.py` (which conversations share a batch, decided before the first token) and `sampling.py`'s noise
need no torch; `cache.py` keeps every key at the slot of its true position; `session.py` feeds ragged rows
to a model; `live.py` is the multi-turn loop; `replay.py` forwards finished transcripts, and `likelihood.py`
takes how likely their replies are from the same pass.
"""
