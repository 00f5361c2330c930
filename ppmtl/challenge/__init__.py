"""The challenge's submission file: write it, check it, score it. The format and its traps: docs/submission.md."""

from ppmtl.challenge.checking import Finding, check
from ppmtl.challenge.expected import Expected
from ppmtl.challenge.scoring import score
from ppmtl.challenge.writing import SubmissionWriter

__all__ = ["Expected", "Finding", "SubmissionWriter", "check", "score"]
