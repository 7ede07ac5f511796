"""LLaDA2.x safetensors, split or merged: names, byte ranges, and the way into the model's tree."""
