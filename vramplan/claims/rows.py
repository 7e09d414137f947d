"""Every claim, in the order of the page."""

from vramplan.claims import constants, sizes, software, training

CLAIMS = (*sizes.CLAIMS, *constants.CLAIMS, *training.CLAIMS, *software.CLAIMS)
