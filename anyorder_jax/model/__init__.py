"""The LLaDA2.x mixture-of-experts masked language model."""
