"""Pictures of systems at work: ``python -m dials_mpi.watch DIR --out FILE``.

episodes.py plays one episode, picture.py draws it, film.py writes pictures one after another; influence.py
compares a region's influence predictor with what happened. What a system looks like is its domain's business
(``Drawable`` in domains/base.py).
"""
