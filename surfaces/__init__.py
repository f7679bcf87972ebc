"""surfaces decides and answers: configuration, publishing, the pipeline and its API."""
