"""Tables: each function with the decorator `catalogue.table` is one, in every module here."""
