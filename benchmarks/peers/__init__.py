"""One file a way of training: ``train(work, epochs)`` trains a fresh model and says how long the training call took."""
