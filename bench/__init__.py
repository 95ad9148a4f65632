"""Speed, as ratios of competitors that take turns: `make bench`, or `python -m bench`. See docs/benchmarks.md.

works         what is trained
competitors   who trains it
rounds        in which order, how often, and on how quiet a machine
speed         the rounds of one work, as plain values
terminal      a terminal for progress bars that nobody looks at
commands      what whole commands cost around their training: waiting, memory
growth        cost against rows, width, depth, folds, trials
machine       what it ran on
report        tables as Markdown
figure        bars and curves
__main__      the options
"""
