"""Fit influence predictors to the kept datasets of a run, apart from any training.

variants.py makes the list of what is compared, fits.py fits it, picture.py draws it.
"""
