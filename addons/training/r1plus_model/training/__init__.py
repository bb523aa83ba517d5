"""Training a student: its recipe, its data, its steps, and the folder that lets a killed run go on."""
