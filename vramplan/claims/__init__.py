"""What articles say about QLoRA's memory, each number worked out again by a command that anyone can run."""

from vramplan.claims.claim import Claim, Finding, Verdict
from vramplan.claims.rows import CLAIMS
from vramplan.claims.run import Checked, check

__all__ = ["CLAIMS", "Checked", "Claim", "Finding", "Verdict", "check"]
