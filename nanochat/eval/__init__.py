"""How good a model is: bits per byte, CORE, tasks in conversation, overlap with the training text,
statistics."""
