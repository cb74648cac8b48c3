"""The stages of a run: recipe and artefacts in, artefacts out."""
