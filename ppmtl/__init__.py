"""ppmtl: one model for segmentation, classification and detection of traffic scenes, in PaddlePaddle.

Importing it imports nothing heavy: no paddle, no numpy.
"""

__version__ = "0.1.0"
