"""Kinds of destinations: what brings events to each is a carrier."""
