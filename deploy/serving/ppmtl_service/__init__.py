"""The HTTP service around one exported bundle; ``deploy/serving/serve.py`` starts it."""
