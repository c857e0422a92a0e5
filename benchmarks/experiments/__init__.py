"""Measurements that belong to no suite."""
