"""Track 1 of the challenge: its test lists, submission file, score and paper. The format and its traps: docs/submission.md."""
