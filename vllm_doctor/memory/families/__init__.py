"""The layers of every architecture family: tensors, shapes and caches, from the numbers of its config."""
