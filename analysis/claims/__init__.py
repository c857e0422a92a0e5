"""The claims of the paper: each is a test with the decorator `verdict.claim`."""
