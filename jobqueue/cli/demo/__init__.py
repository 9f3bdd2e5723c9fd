"""`jobqueue demo`: the main job in one go, with a kill -9 half-way, verified at the end."""
