"""How good a model is: statistics, bits per byte, CORE, tasks in conversation, overlap with the training text."""
