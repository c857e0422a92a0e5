"""From result records to tables, figures and the report; without torch.

One module per step: `records` reads and checks, `runs` holds the runs as a pandas DataFrame,
`metrics` computes, `compare` finds published counterparts, `tables`, `figures` and `report` show.
`python -m analysis --help` is the way in, or in a notebook `analysis.runs.load`.
"""
