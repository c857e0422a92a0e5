"""Figures: each function with the decorator `catalogue.figure` is one, in every module here."""
