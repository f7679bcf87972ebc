"""What each seam of the pipeline must do, run on the fake and on the real thing alike."""
