"Training: settings, the loop, the VAE and the vocoders."
