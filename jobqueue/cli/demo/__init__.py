"""`jobqueue demo`: the main job in one go, with a kill -9 of a worker, verified at the end."""
