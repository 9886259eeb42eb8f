"""Keras on its torch backend: the same torch model in a TorchModuleWrapper, Keras's own Adam and loss; verbose=0."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras  # type: ignore[import-not-found]

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    network = work.model()
    model = keras.Sequential([keras.layers.TorchModuleWrapper(network)])
    if work.name == "regression":
        loss: keras.losses.Loss = keras.losses.MeanSquaredError()
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(LR, epsilon=1e-8), loss=loss, jit_compile=False)
    x, y = work.x.numpy(), work.y.numpy()
    with Stopwatch() as watch:
        model.fit(x, y, epochs=epochs, batch_size=work.batch_size, shuffle=True, verbose=0)
    return watch.trained(network)
