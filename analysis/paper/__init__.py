"""What was published: the values (CSV), their settings, and the effects that the paper claims."""
