"""The Transformer and what trains it: architecture, attention, elementwise operations and loss, optimizer."""
