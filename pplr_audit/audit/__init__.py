"""The audit of a trained run: plan, views, knowledge, truths, cells."""
