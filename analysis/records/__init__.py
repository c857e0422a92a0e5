"""Records, read and checked, and every number that is computed from them."""
