"""From a suite to records: plan, run, record, publish."""
