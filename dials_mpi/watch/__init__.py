"""Pictures and films of episodes: ``python -m dials_mpi.watch DIR --out FILE``.

episodes.py plays one episode, picture.py draws it, film.py writes films; influence.py compares a region's
influence predictor with the sources of played episodes, influence_picture.py draws that. A system is drawn by
its domain (``Drawable`` in domains/base.py).
"""
