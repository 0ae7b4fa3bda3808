"""What `benchmarks/serving.py` is made of. In the order of reading:

rows        the rows of the tables by name, and one picture of a row
statistics  intervals and shares; pure
systems     what is timed: stock diffusers, ours, and caches that differ in their setup
controls    what is drawn in batches beside them, at the steps that ours ran
quality     CLIPScore, and the probes of diversity
figures     from pictures to figures
report      from figures to tables and verdicts
machine     what the figures were measured on
"""
