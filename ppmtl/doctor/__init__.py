"""Looks at the data of a run before it starts: what is wrong, where, how often, what to do."""
