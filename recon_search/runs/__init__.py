"""Work that is done once: trainings, by their identity, in a run folder."""
