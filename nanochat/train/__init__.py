"""The loop, the table of stages, checkpoints, and what the stages are made of."""
