"""Keras without scikit-learn and matplotlib, for whose import it takes twice as long; no training needs them.

It imports both where they are installed. A program imports this module before Keras.
"""

import sys

sys.modules["sklearn"] = sys.modules["matplotlib"] = None
