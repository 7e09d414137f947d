"""What articles say about QLoRA's memory, each number worked out again by a command that anyone can run."""

from vramplan.claims import constants, sizes, software, training
from vramplan.claims.claim import Claim, Finding, Verdict
from vramplan.claims.run import Checked, check

#: Every claim, in the order of the page.
CLAIMS = (*sizes.CLAIMS, *constants.CLAIMS, *training.CLAIMS, *software.CLAIMS)

__all__ = ["CLAIMS", "Checked", "Claim", "Finding", "Verdict", "check"]
