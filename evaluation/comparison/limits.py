"""Every number that decides a claim, in one place; a test pins each, so that none moves unseen.

Set on 2026-11-21, before the test split of any comparison was measured: FEW, STEP, NEAR, HALF and the shares of the
gap. Set later, after some had been: LEAST_GAP and FEWER (2026-11-22); how certain a verdict has to be (2026-11-30),
which made no verdict more favourable.
"""

from __future__ import annotations

# How large a figure has to be; mAP50-95 where nothing else is said
FEW = 0.3  # kept share up to which a system counts as sparing
STEP = 0.003  # by which a larger budget may be worse before the curve counts as falling
NEAR = 0.005  # below SR_Quality everywhere that still counts as equal
HALF = 0.5  # of the SR milliseconds of SR_Quality everywhere, at most
FROZEN_GAP = 0.85  # of the gap that a front end trained with labels recovers before a deployed detector
UNLABELLED_GAP = 0.60  # the same, trained without labels
RETRAINED_GAP = 0.35  # of the gap that a retrained conditional system recovers
FEWER = 0.02  # of the gap by which a system has to recover more with fewer labels
LEAST_GAP = 0.005  # between HR and bicubic images, below which a share of it says nothing

# How certain: the interval of a paired bootstrap lies on one side of the limit
PERCENTILES = (2.5, 97.5)  # of the draws: a 95 % interval
RESAMPLES = 2000  # draws of images and of seeds
DRAWS_SEED = 0  # of the draws, the same for every row
SEEDS_ASKED = 3  # for a row that carries a claim; with one seed the interval is over images alone
