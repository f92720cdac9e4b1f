"""From a checkpoint to answers: predicted, scored, embedded."""
