"""Deterministic simulation of reconcile runs: the real app and core in a seeded world."""
