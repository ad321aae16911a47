"""From a store to batches: which pairs are drawn for a step, and how their texts are packed."""
