"""`jobqueue demo`: the main job in one go, with a kill -9 half-way and a proof at the end."""
