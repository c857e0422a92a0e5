"""Scores of answers, and what scores without any model."""
