"""Speed, as ratios of competitors that take turns: `make bench`, or `python -m bench`. See docs/benchmarks.md.

works         what is trained
competitors   who trains it
rounds        in which order, how often, and on how quiet a machine
__main__      the options and the table
"""
