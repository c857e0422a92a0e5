"""From result records to tables, figures, verdicts on the paper's claims and the report; no torch.

An import goes downwards only:

    draw        files of records to the files that are drawn of them, in several processes
    report      the page of a suite; overview that of all
    claims/     what the paper claims, how it is tested, the verdicts
    figures/    one function for each figure
    tables/     one function for each table, and the forms of a table
    catalogue   the decorators with which tables and figures register themselves
    records/    records as a pandas DataFrame, checked; metrics, variants, trees, what was published
    text        names and values from outside, made fit for a sentence

`python -m analysis --help` is the way in, or in a notebook `analysis.records.runs.load`.
"""
