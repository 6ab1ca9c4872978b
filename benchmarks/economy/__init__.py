"""What shortens a round on thin links and saves bytes: variants of one job, run for real.

`variants` says what is compared, `runs` starts each as anyone would and reads what it leaves,
`figures` makes rows of it, `picture` draws them. `encoding` needs no runs.
`python -m benchmarks.economy.overlap` compares whole mini-batches with micro-batches, turn by turn;
`python -m benchmarks.economy.parts` does so with int8, beside what plans predict.
"""
