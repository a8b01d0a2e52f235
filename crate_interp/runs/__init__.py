"""The frame of commands over images: models, observation, resuming, numbers and figures."""
