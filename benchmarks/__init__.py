"""What to run and how: suites, plans, streams, backbones, runs and their records."""
