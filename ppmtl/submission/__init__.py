"""The challenge's submission file: write it, check it, score it. The format and its traps: docs/submission.md."""

from ppmtl.submission.checking import Finding, check
from ppmtl.submission.expected import Expected
from ppmtl.submission.scoring import score
from ppmtl.submission.writing import SubmissionWriter

__all__ = ["Expected", "Finding", "SubmissionWriter", "check", "score"]
