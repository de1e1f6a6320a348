"The latent space of a model: its analysis, sampling, texture and sliders."
