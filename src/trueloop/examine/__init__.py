"""Examinations: what a trainer and its data can be asked before a run, each question by an experiment of its own.

One examination is one file: a function of a ``Subject`` that gives an ``Examination``. ``whole`` makes them one after
the other, ``aside`` sees to it that nothing of them is left, ``result`` is what comes of them. A failed one speaks by
the name of the doctor's rule that knows the same mistake.
"""
