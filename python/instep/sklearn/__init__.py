"""scikit-learn's multilayer perceptrons, trained by instep's steps: in float64 to the same numbers.

>>> import instep.sklearn
>>> from sklearn.datasets import load_iris
>>> from sklearn.neural_network import MLPClassifier
>>> X, y = load_iris(return_X_y=True)
>>> mlp = MLPClassifier(max_iter=500, random_state=0)
>>> with instep.sklearn.patched():
...     mlp = mlp.fit(X, y)
>>> float(mlp.score(X, y)) > 0.9
True
"""

from instep._support.public import publish
from instep.sklearn.optimizers import SGD, Adam
from instep.sklearn.patch import patched


def __dir__() -> list[str]:
    return __all__


__all__ = ["SGD", "Adam", "patched"]

publish(__name__, __all__, globals())
