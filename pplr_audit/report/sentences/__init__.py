"""The answer in sentences: claims with interval and baseline, and no more than was measured."""
