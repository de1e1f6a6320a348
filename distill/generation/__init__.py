"New sounds from a model: recipes, generation, and replay."
